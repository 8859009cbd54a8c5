"""Some words that docs/glossary.md lists as not used: those without another meaning, so that a search finds them."""

import re
from typing import Final

import pytest

from tests.clients.tools import ROOT
from tests.docs.pages import README, text_of

_UNUSED: Final = ("anew", "goodbye", "let go", "whoever")
_ROOMS: Final = ("auth", "backends", "relay", "roundlog", "rounds", "stream_relay")
_FILES: Final = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for room in _ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
)
_LIST: Final = "\n## Not used\n"


@pytest.mark.parametrize("word", _UNUSED)
def test_word_is_not_used(word: str) -> None:
    """The pages for users, and the code with its comments, have one word for one thing."""
    pattern = re.compile(rf"\b{word}\b".replace(" ", r"\s+(?:#\s+)?"), re.IGNORECASE)
    found = []
    for path in _FILES:
        text = path.read_text("utf-8").partition(_LIST)[0]
        lines = (text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(text))
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]

    assert not found, f"{word!r} is used in:\n" + "\n".join(found)


def test_no_log_event_has_a_word_that_is_not_used() -> None:
    """Operators search for events by name: here also the words that have another meaning elsewhere."""
    events = {
        event
        for path in _FILES
        if path.suffix == ".py"
        for event in re.findall(r"""\blog\.\w+\(\s*"([a-z_]+)\"""", path.read_text("utf-8"))
    }

    assert {"link_opened", "gap_sent"} <= events
    assert not {event for event in events if {"anew", "goodbye", "place", "places", "told"} & set(event.split("_"))}


@pytest.mark.parametrize("word", _UNUSED)
def test_word_is_in_the_glossary(word: str) -> None:
    """With the word to use in its place."""
    assert re.search(rf"\*{word}\* \(say ", text_of("glossary.md").partition(_LIST)[2])
