"""Headers that keep a browser from misusing an answer: guessed types, referrers with secrets, foreign scripts, caches.

Owns which answers get which. Strict-Transport-Security is not among them: the relay's HTTP port has no TLS, and only
what terminates TLS knows whether all of a host is reached by it. Pure.
"""

import base64
import hashlib
import re
from collections.abc import MutableMapping
from typing import Final

BASE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # URLs of event streams may have a key
}
"""For every answer with data, event streams too."""

_NO_STORE: Final = "no-store"
_PAGE: Final = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # of pages only: pages of other origins read the API
    "X-Frame-Options": "DENY",  # browsers that do not know frame-ancestors
}
_INLINE: Final = re.compile(r"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)


def add_to(headers: MutableMapping[str, str]) -> None:
    """Complete the headers of an answer. Caches keep nothing, unless its handler has decided otherwise.

    ``Authorization`` keeps an answer out of shared caches, ``X-API-Key`` does not (RFC 9111 section 3.5).
    """
    headers.update(BASE)
    headers.setdefault("Cache-Control", _NO_STORE)


def page_headers(html: str, *, connects_to: str) -> dict[str, str]:
    """Return the headers of a page that loads nothing: only the scripts and styles in its text may run.

    Args:
        html: The page.
        connects_to: Sources that its scripts may connect to, as in ``connect-src`` of CSP.
    """
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = hashlib.sha256(text.encode()).digest()
        allowed[kind.lower()].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    directives = [
        "default-src 'none'",
        *(f"{kind}-src {' '.join(hashes)}" for kind, hashes in allowed.items() if hashes),
        "img-src data:",  # the icon
        f"connect-src {connects_to}",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
    return _PAGE | {"Content-Security-Policy": "; ".join(directives)}
