"""``stream-relay serve`` without the library that reads command lines, and with few imports, until the relay is ready.

A platform that starts a relay for a request waits for it, and most of the start is imports. Owns which arguments are so
plain that they need no library, and which libraries are imported in part. Every other command line is for
`relay.commands.root`, which reads the same arguments and reports what is wrong with them.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_PORTS: Final = {"--port": "http", "--grpc-port": "grpc"}
_LARGEST_PORT: Final = 65_535
_NEEDED: Final = (
    "RELAY_AUTH_TOKEN_SECRETS",
    "RELAY_AUTH_TOKEN_SECRETS_FILE",
    "RELAY_AUTH_TOKEN_KEY_FILES",
    "RELAY_CONFIG",
)
"""A relay does not start without one of these, and then says so, which needs no haste."""


def plain_overrides(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Read the arguments of ``stream-relay``: the settings that they override, with ``config`` for the option's file.

    None when they are of another command, or in any way unusual, or when the relay cannot start.
    """
    given: dict[str, Any] = {}
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    command = ["serve"]
    while words:
        word = words.pop(0)
        if [word] == command:
            command = []
            continue
        if not words or not (value := words.pop(0)) or value.startswith("-"):
            return None
        if word == "--config" and command:
            given["config"] = value
        elif word == "--host" and not command:
            given.setdefault("http", {})["host"] = value
        elif word in _PORTS and not command and value.isascii() and value.isdecimal() and int(value) <= _LARGEST_PORT:
            given.setdefault(_PORTS[word], {})["port"] = int(value)
        else:
            return None
    if command or not ("config" in given or any(name in os.environ for name in _NEEDED)):
        return None
    return given


def plain_serve(overrides: dict[str, Any]) -> None:
    """Run a relay, as `relay.commands.root.serve`; `overrides` are from `plain_overrides`."""
    if (config := overrides.pop("config", None)) is not None:
        os.environ["RELAY_CONFIG"] = config
    gc.disable()  # until the relay listens: what is imported stays
    with _without_rich():
        import structlog  # noqa: F401

    from relay.commands.run import load_settings, run

    settings = load_settings(overrides, quickly=True)
    if not settings.identity.is_set:  # its keys are fetched at the start
        from relay.http.connections.early_import import import_aiohttp

        import_aiohttp()
    from relay.serve import serve

    run(serve(settings))


@contextmanager
def _without_rich() -> Iterator[None]:
    """Have `rich` not found: structlog would import it, and the highlighter of code that it uses, for tracebacks.

    Those that `relay.config.logs` configures are the plain ones, which do not show the values of variables.
    """
    if "rich" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules["rich"] = None
    try:
        yield
    finally:
        del modules["rich"]
