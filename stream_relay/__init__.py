"""The public face for writers of backends: the contract, rounds, the catalogue, and the errors to raise.

    from stream_relay import BackendContext, Captured, InvalidOptions, Rejected, Round

What `__all__` names is public API and follows semantic versioning; everything else in the wheel is internal and may
move. Names load when they are first used, so that importing this package costs next to nothing. How to write a backend:
docs/backends.md. Why a face of its own: docs/adr/0015-the-wheel-keeps-its-folders.md
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from backends.backlog import Backlog, HasBacklog
    from backends.contract import (
        Backend,
        BackendContext,
        BackendError,
        Captured,
        HasOffsets,
        HasStandby,
        InvalidOptions,
        KeptOffset,
        OffsetTaken,
        Rejected,
        SourceError,
        SourceOffsets,
        SourceUnavailable,
    )
    from backends.ingest.instrumented import HasStatus
    from rounds import Catalogue, Game, InvalidRound, Round, UnknownGame, stringify_extras

__all__ = [
    "Backend",
    "BackendContext",
    "BackendError",
    "Backlog",
    "Captured",
    "Catalogue",
    "Game",
    "HasBacklog",
    "HasOffsets",
    "HasStandby",
    "HasStatus",
    "InvalidOptions",
    "InvalidRound",
    "KeptOffset",
    "OffsetTaken",
    "Rejected",
    "Round",
    "SourceError",
    "SourceOffsets",
    "SourceUnavailable",
    "UnknownGame",
    "stringify_extras",
]

_HOME: Final = {
    "Backlog": "backends.backlog",
    "Catalogue": "rounds",
    "Game": "rounds",
    "HasBacklog": "backends.backlog",
    "HasStatus": "backends.ingest.instrumented",
    "InvalidRound": "rounds",
    "Round": "rounds",
    "UnknownGame": "rounds",
    "stringify_extras": "rounds",
}
"""Where a public name is defined; `backends.contract` for all others."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    from stream_relay.rooms import shadowed

    if (sentence := shadowed()) is not None:
        raise ImportError(sentence)
    return getattr(import_module(_HOME.get(name, "backends.contract")), name)


def __dir__() -> list[str]:
    return __all__
