"""Read a text file that a setting names."""

from pathlib import Path

from relay.errors import StartError


def read_text_file(path: Path, setting: str) -> str:
    """Return the file's text; raise `StartError`, which names `setting`, when it cannot be read as UTF-8."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{setting}={str(path)!r} cannot be read: {error}") from error
