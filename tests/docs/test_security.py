"""The page on security names tests that exist, and what SECURITY.md promises is there."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.clients.tools import ROOT
from tests.docs.pages import text_of

_NAMED: Final = re.compile(r"`(tests/[a-z0-9_/]+\.py)::([a-z0-9_]+)`")
NAMED: Final = sorted({(found[1], found[2]) for found in _NAMED.finditer(text_of("security.md"))})


@cache
def functions_of(path: str) -> set[str]:
    """Return the names of a module's test functions."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_named_tests_exist(path: str) -> None:
    """A defence without a test is a claim."""
    named = {name for of, name in NAMED if of == path}

    assert (ROOT / path).is_file(), f"docs/security.md names {path}"
    assert named <= functions_of(path), f"docs/security.md names {sorted(named - functions_of(path))} of {path}"


def test_every_threat_has_a_test() -> None:
    """Each row of a table of threats ends with at least one."""
    rows = [
        row
        for part in text_of("security.md").split("| threat | defence | shown by |\n|---|---|---|\n")[1:]
        for row in part.partition("\n\n")[0].splitlines()
    ]

    assert len(rows) > 20
    assert [row for row in rows if not _NAMED.search(row.split(" | ")[-1])] == []


def test_all_functions_of_accounts_are_named() -> None:
    """So that the page lists every known way round the permissions in NATS."""
    for path in ("tests/security/test_relay_account.py", "tests/security/test_cluster.py"):
        named = {name for of, name in NAMED if of == path}
        allowed = {name for name in functions_of(path) if name.startswith(("test_a_relay_reads", "test_relays_of_an"))}
        assert functions_of(path) - allowed <= named, path


def test_ways_to_report_are_there() -> None:
    """What a finder needs: where, which versions, and how soon somebody answers."""
    text = Path(ROOT / "SECURITY.md").read_text("utf-8")

    for heading in ("## Report a vulnerability", "## Supported versions", "## What is in scope"):
        assert heading in text
