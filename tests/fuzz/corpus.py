"""The inputs that are kept: one file for each target, with one Python bytes literal in each line."""

import ast
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "corpus"


def corpus_of(target: str) -> list[bytes]:
    """Return the inputs of a target, in the order of its file."""
    lines = (_FOLDER / f"{target}.txt").read_text("ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def targets_with_corpus() -> set[str]:
    """Return the names of all targets that have a file."""
    return {path.stem for path in _FOLDER.glob("*.txt")}
