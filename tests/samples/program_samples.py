"""The samples that are programs, and how to start each with the command in its README."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.clients.program import Program
from tests.clients.tools import ROOT, go_modules, node_packages, tool

SAMPLES: Final = ROOT / "samples"
PROGRAMS: Final = [
    f"{protocol}/{language}" for protocol in ("websocket", "sse") for language in ("go", "javascript", "python")
]


def start(name: str, environment: Mapping[str, str]) -> Program:
    """Start a sample with the last command of its README; skip the test when its language is not installed."""
    folder = SAMPLES / name
    command = shlex.split(readme_commands(folder)[-1])
    match folder.name:
        case "go":
            go_modules(folder)
        case "javascript":
            tool("node")
            node_packages(folder)
        case _:  # a test compares the tests' own environment with the sample's requirements
            assert command[0] == ".venv/bin/python"
            command[0] = sys.executable
    return Program(command, cwd=folder, env=environment)


def readme_commands(folder: Path) -> list[str]:
    """Return the lines of the first code block of a folder's README."""
    block = re.search(r"^```\n(.*?)^```", (folder / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].splitlines()
