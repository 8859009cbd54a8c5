"""docs/architecture.md names what is there: its files exist, and its rooms have the sentences of the code."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.test_rooms import ARROWS, LAYERS
from tests.architecture.tree import ROOT, modules, tree_of

PAGE: Final = (ROOT / "docs/architecture.md").read_text("utf-8")
_CODE: Final = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*/?(?:\.[a-z]+)?)`")


def section(title: str) -> str:
    """Return the text of one section of the page."""
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rooms() -> dict[str, str]:
    """Return every folder of the packages with the first sentence of its ``__init__.py``."""
    found = {}
    for path in modules().values():
        if path.name == "__init__.py":
            text = ast.get_docstring(tree_of(path)) or ""
            sentence = text.partition("\n\n")[0].replace("\n", " ")
            found[str(path.parent.relative_to(ROOT))] = re.match(r".*?\.(?= |$)", sentence)[0]  # type: ignore[index]
    return found


@pytest.mark.parametrize("name", sorted({name for name in _CODE.findall(PAGE) if "/" in name}))
def test_named_file_exists(name: str) -> None:
    """A reader who follows a path arrives."""
    assert (ROOT / name).exists()


def test_rooms_are_listed_with_their_own_sentence() -> None:
    """A room that is added, removed or given another job changes the page."""
    rows = dict(re.findall(r"^\| `([a-z_0-9/]+)/` \| (.*) \|$", section("Rooms"), re.MULTILINE))
    sentences = {name: sentence.replace("``", "`") for name, sentence in rooms().items()}

    assert rows == sentences


def test_arrows_are_those_of_the_test() -> None:
    """What the page allows is what is allowed."""
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section("Arrows"), re.MULTILINE)
    listed = {name.removesuffix(".py").replace("/", "."): text for names, text in rows for name in _CODE.findall(names)}

    for room, text in listed.items():
        named = {name.removesuffix(".py").replace("/", ".") for name in _CODE.findall(text)}
        if "the same" in text:
            named |= {"auth", "roundlog", "rounds"}
        assert named == {allowed for allowed in ARROWS[room] if allowed != "relay"}, room
    assert listed.keys() == ARROWS.keys()


def test_order_of_the_rooms_is_that_of_the_test() -> None:
    """The page lists the rooms of `relay` and `backends` from the lowest up."""
    text = section("Arrows").replace("\n", " ")
    for package, end in (("relay", "commands"), ("backends", "ingest")):
        listed = re.search(rf"Inside `{package}`[^:]*: (.*?{end})\.", text)
        assert listed is not None
        names = re.findall(r"[a-z_0-9]+", listed[1].replace(" and ", ", "))
        layers = [room for layer in LAYERS[package] for room in sorted(layer)]
        assert names == [room for room in layers if room not in ("cli", "recordings")]


def test_page_is_where_it_is_looked_for() -> None:
    """A newcomer comes from CONTRIBUTING."""
    assert "(docs/architecture.md)" in Path(ROOT / "CONTRIBUTING.md").read_text("utf-8")
