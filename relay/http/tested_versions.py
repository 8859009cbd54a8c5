"""Name the versions of a library that this relay is tested with, when the installed one lacks a part that it uses."""

import re
from importlib.metadata import requires


def tested_range(library: str) -> str:
    """Return the range of this package's own requirement of a library, such as ``<4,>=3.13``."""
    found = [re.fullmatch(rf"{library}\s*([^;]*[^;\s]).*", each) for each in requires("stream-relay") or ()]
    return next(match[1] for match in found if match is not None)
