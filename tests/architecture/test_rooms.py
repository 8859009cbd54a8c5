"""Which room may import which, and which room alone imports a vendor's library, as in docs/architecture.md."""

import ast
import tomllib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.architecture.tree import PACKAGES, ROOT, imports, is_in, modules, tree_of

ARROWS: Final = {
    "rounds": (),
    "roundlog": ("rounds",),
    "auth": (),
    "auth.stores": ("auth", "roundlog", "rounds"),
    "backends": ("roundlog", "rounds"),
    "relay": ("auth", "roundlog", "rounds"),
    "relay.commands": ("auth", "backends", "relay", "roundlog", "rounds"),
    "relay.config": ("auth", "backends", "relay", "roundlog", "rounds"),
    "relay.demo": ("auth", "backends", "relay", "roundlog", "rounds"),
    "relay.serve": ("auth", "backends", "relay", "roundlog", "rounds"),
    "stream_relay": ("backends", "relay.cli", "rounds"),
}
"""Our rooms that each room may import, besides itself. For a module, the longest matching name counts."""

LAYERS: Final = {
    "relay": (
        {"errors", "signals", "turns"},
        {"config", "tls_files"},
        {"audit", "usage"},
        {"live"},
        {"history"},
        {"admission"},
        {"links"},
        {"http2"},
        {"http"},
        {"rpc"},
        {"admin"},
        {"compose"},
        {"serve"},
        {"demo"},
        {"commands"},
        {"cli"},
    ),
    "backends": (
        {"backend_settings", "contract"},
        {"backlog", "registry", "recordings"},
        {"publish"},
        {"file", "postgres"},
        {"ingest"},
    ),
}
"""The rooms of a package from the lowest up. A room imports only what is below it."""

VENDORS: Final = {
    "aiohttp": (
        "relay.admin.api",
        "relay.compose",
        "relay.http",
        "relay.rpc.connect",
        "relay.serve",
        "relay.commands.client",
    ),
    "asyncpg": ("auth.stores", "backends.postgres", "relay.demo"),
    "grpc": ("relay.commands.client",),
    "h2": ("relay.http2",),
    "hpack": ("relay.http2",),
    "jwt": ("auth.signing",),
    "nats": ("roundlog",),
    "psycopg": ("backends.postgres",),
    "prometheus_client": ("relay.http", "backends.ingest.ingest_metrics"),
    "zstandard": ("backends.file", "backends.recordings", "relay.commands.client"),
}
"""The only rooms that import a vendor's library; the others use our interface to it."""


def room_of(module: str) -> str:
    return max((room for room in ARROWS if is_in(module, room)), key=len)


def ours(module: str) -> Iterator[str]:
    """Yield our modules that a module imports."""
    known = modules()
    for name in imports(known[module]):
        if name in known:
            yield name


@pytest.mark.parametrize("module", modules())
def test_arrows_point_one_way(module: str) -> None:
    """A room imports only what the table allows."""
    room = room_of(module)
    allowed = (room, *ARROWS[room])

    wrong = [name for name in ours(module) if not any(is_in(name, package) for package in allowed)]

    assert not wrong, f"{module} is in {room}, which imports only {', '.join(allowed)}"


@pytest.mark.parametrize("package", LAYERS)
def test_nothing_imports_upwards(package: str) -> None:
    """The rooms of a package are layers, so that there is no circle."""
    level = {f"{package}.{room}": number for number, rooms in enumerate(LAYERS[package]) for room in rooms}
    inside = [module for module in modules() if is_in(module, package) and module != package]
    assert {".".join(module.split(".")[:2]) for module in inside} == set(level), "every room has a layer"

    for module in inside:
        room = ".".join(module.split(".")[:2])
        for name in ours(module):
            other = ".".join(name.split(".")[:2])
            if is_in(name, package) and other not in (room, package):
                assert level[other] < level[room], f"{module} imports {name}, which is not below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Each module can be read after those that it imports; an import inside a function counts too."""
    left = {module: {name for name in ours(module) if name != module} for module in modules()}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]

    assert left == {}


@pytest.mark.parametrize("vendor", VENDORS)
def test_vendor_is_imported_in_one_place(vendor: str) -> None:
    """All uses of a library are in one room, and the table has no room that does not use it."""
    importers = {module for module, path in modules().items() if any(is_in(name, vendor) for name in imports(path))}

    strangers = {module for module in importers if not any(is_in(module, room) for room in VENDORS[vendor])}
    unused = {room for room in VENDORS[vendor] if not any(is_in(module, room) for module in importers)}

    assert not strangers
    assert not unused


def test_no_room_is_crowded() -> None:
    """A folder has at most 14 modules."""
    sizes: dict[str, int] = {}
    for path in modules().values():
        sizes[str(path.parent)] = sizes.get(str(path.parent), 0) + 1

    assert {folder: size for folder, size in sizes.items() if size > 14} == {}


def test_names_of_modules_are_unique() -> None:
    """A name that is searched for, in an editor or a traceback, is one file."""
    names = [path.name for path in modules().values() if path.name != "__init__.py"]

    assert sorted(names) == sorted(set(names))


def test_names_of_public_classes_are_unique() -> None:
    """One word means one thing."""
    trees = [tree_of(path) for path in modules().values()]
    names = [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [name for name in names if not name.startswith("_")]

    assert sorted(public) == sorted(set(public))


def test_packages_are_those_of_the_wheel() -> None:
    """A package that is not listed here would not be checked."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert sorted(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(PACKAGES)
