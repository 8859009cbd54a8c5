"""Backends by name: built-in ones in a table, others as entry points. A backend loads only when it is chosen."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from backends.contract import Backend, BackendContext, BackendError

GROUP: Final = "stream_relay.backends"
"""The entry point group in which other packages register backends: ``name = "package.module:Class"``."""

_BUILT_IN: Final[Mapping[str, str]] = {
    "file": "backends.file:FileReplay",
    "postgres-notify": "backends.postgres.notify.postgres_notify:PostgresNotify",
    "postgres-replication": "backends.postgres.replication.postgres_replication:PostgresReplication",
}


Factory = Callable[[Mapping[str, object], BackendContext], Backend[Any]]


class UnknownBackend(BackendError):
    """No backend has this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"unknown backend {self.name[:64]!r}; known backends: {', '.join(self.known)}"


class BrokenBackend(BackendError):
    """The backend cannot be loaded: a package that it needs is missing, or its entry point is wrong."""

    def __init__(self, name: str, target: str, reason: str) -> None:
        super().__init__(name, target, reason)
        self.name, self.target, self.reason = name, target, reason

    def __str__(self) -> str:
        return f"backend {self.name!r} ({self.target}) cannot be loaded: {self.reason}"


def known_backends() -> list[str]:
    """Name every backend that can be chosen, sorted. Loads none of them."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def make_backend(name: str, options: Mapping[str, object], context: BackendContext) -> Backend[Any]:
    """Load the backend called `name` and construct it. An entry point cannot replace a built-in name.

    Raises:
        UnknownBackend: There is no such backend; the text lists the known ones.
        BrokenBackend: It cannot be loaded.
        InvalidOptions: The backend does not accept `options`.
    """
    target = _BUILT_IN.get(name) or _registered(name)
    module, _, attribute = target.partition(":")
    try:
        factory = cast("Factory", getattr(import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise BrokenBackend(name, target, str(error)) from error
    return factory(options, context)


def _registered(name: str) -> str:
    points: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
    if not points:
        raise UnknownBackend(name, known_backends())
    targets = sorted({point.value for point in points})
    if len(targets) > 1:
        raise BrokenBackend(name, ", ".join(targets), "several packages register this name; uninstall all but one")
    return targets[0]
