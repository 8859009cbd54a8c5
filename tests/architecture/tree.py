"""The packages of this repository and their imports, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("auth", "backends", "relay", "roundlog", "rounds", "stream_relay")


@cache
def modules() -> dict[str, Path]:
    """Return each of our modules by its dotted name, without generated code."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.stem.endswith("_pb2"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a module, once for all tests of a process."""
    return ast.parse(path.read_text("utf-8"))


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield a module and all statements in it at any depth, seven times as fast as `ast.walk` does all nodes."""
    found: list[ast.AST] = [tree]
    for node in found:  # it grows
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            below = getattr(node, field, ())
            found += below if isinstance(below, list) else ()


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names of all that a module imports, anywhere in it; for ``from a import b`` also ``a.b``."""
    found = set()
    for node in statements(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise AssertionError(f"{path} has a relative import; write the whole name")
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def is_in(name: str, package: str) -> bool:
    """Whether a dotted name is a package or something in it."""
    return name == package or name.startswith(f"{package}.")
