"""The top-level packages of the wheel, and whether Python finds them where they were installed.

Their names are generic (`auth`, `backends`, …): a folder of the same name that stands earlier on ``sys.path`` would be
imported instead. Imports nothing of ours, since what it checks may not be ours.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOMS: Final = ("auth", "backends", "relay", "roundlog", "rounds")
_HOME: Final = Path(__file__).resolve().parents[1]


def shadowed() -> str | None:
    """Say in one sentence which package is not the installed one, where it is, and what to do; None: all are ours."""
    for name in ROOMS:
        found = _location(name)
        if found != _HOME / name:
            if found is None:
                return f"the package {name!r} is missing in '{_HOME}'; install stream-relay again"
            return (
                f"the package {name!r} is imported from '{found}', and stream-relay is installed in '{_HOME}'; "
                "rename it, or start without its folder on the path (PYTHONPATH, or the working directory)"
            )
    return None


def _location(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a module of this name that was put together by hand has no spec
        return None
    if spec is None or not (spec.has_location or spec.submodule_search_locations):
        return None
    origin = spec.origin if spec.has_location and spec.origin else next(iter(spec.submodule_search_locations or ()))
    path = Path(origin).resolve()
    return path.parent if path.name == "__init__.py" else path
