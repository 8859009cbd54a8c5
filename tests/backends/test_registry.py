"""Backends are chosen by name, load only then, and anyone can add one."""

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import backends.registry
from backends.contract import BackendContext, InvalidOptions
from backends.registry import BrokenBackend, UnknownBackend, known_backends, make_backend
from rounds import Catalogue
from tests.backends.own_backend import Lines

CONTEXT = BackendContext(Catalogue.load())


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that are installed, as the registry sees them; tests add theirs."""
    points: list[EntryPoint] = []

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(backends.registry, "entry_points", entry_points)
    return points


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "stream_relay.backends")


def test_registered_backend_is_made_with_its_options(registered: list[EntryPoint]) -> None:
    """Another package's class is constructed as ``Class(options, context)``."""
    registered.append(point("lines", "tests.backends.own_backend:Lines"))

    assert isinstance(make_backend("lines", {"text": ""}, CONTEXT), Lines)
    assert {"file", "lines"} <= set(known_backends())


def test_unknown_name_lists_the_known_ones(registered: list[EntryPoint]) -> None:
    """Built-in and registered names alike, sorted."""
    registered.append(point("lines", "tests.backends.own_backend:Lines"))

    with pytest.raises(UnknownBackend, match="unknown backend 'postgress'; known backends: file, lines"):
        make_backend("postgress", {}, CONTEXT)


def test_backend_loads_only_when_chosen(registered: list[EntryPoint]) -> None:
    """A driver that is not installed hurts nobody who does not use it."""
    registered.append(point("broken", "no_such_package.backend:Backend"))
    known_backends()
    assert "no_such_package" not in sys.modules

    with pytest.raises(
        BrokenBackend, match=r"backend 'broken' \(no_such_package.backend:Backend\) cannot be loaded: No"
    ):
        make_backend("broken", {}, CONTEXT)


@pytest.mark.parametrize("target", ["tests.backends.own_backend:Missing", "tests.backends.own_backend", ""])
def test_entry_point_that_names_no_class_is_one_sentence(registered: list[EntryPoint], target: str) -> None:
    """The fault is in someone's package; the text says in which."""
    registered.append(point("odd", target))

    with pytest.raises(BrokenBackend, match="backend 'odd'"):
        make_backend("odd", {}, CONTEXT)


def test_name_that_two_packages_register_is_refused(registered: list[EntryPoint]) -> None:
    """Which of them would be run must not depend on the order of installation."""
    registered += [point("lines", "a:A"), point("lines", "b:B")]

    with pytest.raises(BrokenBackend, match="several packages register this name"):
        make_backend("lines", {}, CONTEXT)


def test_built_in_name_cannot_be_taken_over(registered: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documentation says about a built-in name stays true whatever is installed."""
    monkeypatch.setattr(backends.registry, "_BUILT_IN", {"file": "tests.backends.own_backend:Lines"})
    registered.append(point("file", "somewhere:Else"))

    assert isinstance(make_backend("file", {"text": ""}, CONTEXT), Lines)


@pytest.mark.parametrize("options", [{}, {"text": 1}, {"text": "", "more": 1}])
def test_wrong_options_are_the_backends_own_sentence(registered: list[EntryPoint], options: dict[str, Any]) -> None:
    """The registry passes it on as it is."""
    registered.append(point("lines", "tests.backends.own_backend:Lines"))

    with pytest.raises(InvalidOptions, match="there is one, text"):
        make_backend("lines", options, CONTEXT)
