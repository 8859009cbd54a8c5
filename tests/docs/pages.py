"""The pages for users, as text: their tables, code blocks, links and headings."""

import re
from pathlib import Path
from typing import Final

from tests.clients.tools import ROOT

README: Final = ROOT / "README.md"
PAGES: Final = sorted(
    path
    for folder in (".", "docs", "docs/adr", "infra", "samples", "proto", "backends/recordings")
    for path in (ROOT / folder).glob("*.md")
)


def text_of(page: str) -> str:
    """Read a page of docs/."""
    return (ROOT / "docs" / page).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str, heading: str) -> list[list[str]]:
    """The rows below the header of the table whose first column is called `heading`."""
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-| :]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found is not None, f"no table with a column {heading}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def words(cell: str) -> list[str]:
    """Return what is between backticks."""
    return re.findall(r"`([^`]*)`", cell)


def links(page: Path) -> list[str]:
    """The targets of a page's links to other files and headings of this repository."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
