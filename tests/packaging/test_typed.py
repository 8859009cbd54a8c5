"""Every package of the wheel is marked as typed (PEP 561), so that a writer of a backend can check types."""

import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["packages"]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_marked_as_typed(package: str) -> None:
    """Without the file, a type checker takes all names of the package as `Any`."""
    assert (ROOT / package / "py.typed").is_file()
