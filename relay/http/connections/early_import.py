"""Import aiohttp without the certificates of authorities, which it reads when it is imported; read them later.

A relay without an identity provider asks no other server by TLS. It reads them all the same, in a thread when it is
ready, so that aiohttp is then as everywhere. Imports nothing of aiohttp before that.
"""

import ssl
import sys
from collections.abc import Callable

_left_out: list[Callable[[], None]] = []
"""What reads them into the contexts that aiohttp has made."""


def import_aiohttp() -> None:
    """Import it, unless that was done."""
    if "aiohttp" in sys.modules:
        return
    context = ssl.SSLContext
    originals = {name: getattr(context, name) for name in ("load_default_certs", "set_default_verify_paths")}
    for name in originals:
        setattr(context, name, _noting(originals[name]))
    try:
        import aiohttp  # noqa: F401
    finally:
        context.load_default_certs = originals["load_default_certs"]  # type: ignore[method-assign]
        del context.set_default_verify_paths  # the base class has it


def _noting(original: Callable[..., None]) -> Callable[..., None]:
    return lambda *arguments: _left_out.append(lambda: original(*arguments))


def read_certificates() -> None:
    """Read what `import_aiohttp` has left out. Takes 50 ms; OpenSSL does not hold Python's lock meanwhile."""
    while _left_out:
        _left_out.pop()()
