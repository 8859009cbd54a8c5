"""Pages and docstrings name what is there: every file, and every module and name of our packages."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.tree import PACKAGES, ROOT, modules, statements, tree_of

_PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
_FENCED: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"(?<![\w./:<>*~-])[\w.-]+/[\w./-]+\.(?:py|sql|toml|md)\b(?![\w/])")
_CODE: Final = re.compile(r"``([^`]+)``|`([^`]+)`")
_DOTTED: Final = re.compile(
    rf"(?<![\w./=-])(?:{'|'.join((*PACKAGES, 'bench', 'tests'))})(?:\.[A-Za-z_]\w*)+(?![\w/*<-]|\.[*<])"
)
_IN: Final = re.compile(r"\bin\s+(`[a-z_0-9.]+`(?:(?:,| and|, and)\s+`[a-z_0-9.]+`)*)")
_MODULE: Final = re.compile(r"(?<!`)`([a-z_][a-z_0-9]*(?:\.[a-z_][a-z_0-9]*)*)`(?!`)")

_NOT_OURS: Final = {
    "rounds.a.b",  # a subject that a bad slug would make
    "stream_relay.backends",  # the group of entry points
    "stream_relay.key_revision",  # a sequence in PostgreSQL
    "stream_relay.keys",  # a table in PostgreSQL
    "stream_relay.positions",  # likewise
    "stream_relay.feed",  # likewise
    "stream_relay.unfinished",  # likewise
    "stream_relay.revocations",  # likewise
}


@cache
def docstrings(path: Path) -> tuple[str, ...]:
    """Return each text that stands alone as a statement: docstrings, and those below a constant or a field."""
    return tuple(
        node.value.value
        for node in statements(tree_of(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def texts() -> Iterator[tuple[Path, str]]:
    """Yield each page and each docstring, with its file."""
    for page in _PAGES:
        yield page, page.read_text("utf-8")
    for path in modules().values():
        for text in docstrings(path):
            yield path, text


def module_path(name: str) -> Path | None:
    """Return the file of a module, or of a package's ``__init__.py``; None when there is no such module."""
    path = ROOT.joinpath(*name.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.exists() else None


def members(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return what the statements of a module or class bind, also below ``if`` and ``try``, with ``self.x = …``."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        match statement:
            case ast.ClassDef(name=name):
                found[name] = statement
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = statement
                targets = (node for node in ast.walk(statement) if isinstance(node, ast.Attribute))
                found |= {
                    node.attr: statement
                    for node in targets
                    if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
                }
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name: statement for alias in names}
            case ast.Assign() | ast.AnnAssign() | ast.If() | ast.Try() | ast.With():
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        found[node.id] = statement
                    elif isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef):
                        found |= members([node])
    return found


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or a name that a module binds, or a member of a class of that module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = module_path(".".join(parts[:length]))
        if path is None:
            continue
        body: list[ast.stmt] = tree_of(path).body
        for part in parts[length:]:
            statement = members(body).get(part)
            if statement is None:
                return False
            body = statement.body if isinstance(statement, ast.ClassDef) else []
        return True
    return False


def dotted_names(path: Path, text: str) -> list[str]:
    """Return the dotted names between backticks that begin with a package of ours; fenced blocks do not count."""
    prose = _FENCED.sub("", text) if path.suffix == ".md" else text
    names = [name for code in _CODE.findall(prose) for name in _DOTTED.findall("".join(code))]
    return [name for name in names if not name.endswith((".toml", ".md", ".py", ".sql"))]


def is_module_seen_from(path: Path, name: str) -> bool:
    """Whether `name` is a module in the folder of `path` or in a folder above it."""
    package = path.parent.relative_to(ROOT).parts
    return any(module_path(".".join((*package[:length], name))) is not None for length in range(len(package), -1, -1))


def test_named_files_exist() -> None:
    """Seen from the root, from the file that names it, or from a folder in between."""
    broken = []
    for path, text in texts():
        folders = [folder for folder in path.parents if folder.is_relative_to(ROOT)]
        missing = (name for name in _FILE.findall(text) if not any((folder / name).exists() for folder in folders))
        broken += [f"{path.relative_to(ROOT)}: {name}" for name in missing]

    assert not broken, "\n".join(broken)


def test_named_modules_and_names_exist() -> None:
    """A dotted name resolves to a module, a name in it, or a member of a class in it."""
    seen = {(path, name) for path, text in texts() for name in dotted_names(path, text)}
    broken = sorted(
        f"{path.relative_to(ROOT)}: {name}" for path, name in seen if name not in _NOT_OURS and not resolves(name)
    )

    assert not broken, "\n".join(broken)
    assert {name for _, name in seen} >= _NOT_OURS


def test_docstring_of_a_module_points_to_modules_that_exist() -> None:
    """What "is decided in `x`" is decided in a module of that name."""
    broken = []
    for path in modules().values():
        text = ast.get_docstring(tree_of(path)) or ""
        names = (name for listed in _IN.findall(text) for name in _MODULE.findall(listed))
        broken += [f"{path.relative_to(ROOT)}: {name}" for name in names if not is_module_seen_from(path, name)]

    assert not broken, "\n".join(broken)


def test_docstring_of_a_package_lists_modules_that_exist() -> None:
    """Each lower-case word between single backticks is a module, or a name that the package binds."""
    broken = []
    for path in modules().values():
        if path.name == "__init__.py":
            tree = tree_of(path)
            names = set(_MODULE.findall(ast.get_docstring(tree) or "")) - members(tree.body).keys()
            broken += [f"{path.relative_to(ROOT)}: {name}" for name in names if not is_module_seen_from(path, name)]

    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relay.live.hub", True),
        ("backends.publish.window.acks.Window", True),
        ("backends.contract.Backend.read", True),
        ("stream_relay.HasOffsets", True),
        ("relay.live.no_such_module", False),
        ("backends.publish.window.acks.NoSuchName", False),
        ("backends.contract.Backend.no_such_method", False),
    ],
)
def test_names_are_resolved(name: str, expected: bool) -> None:
    """To modules, names and members; a name that is missing at any place does not resolve."""
    assert resolves(name) is expected
