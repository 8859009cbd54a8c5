"""The recording that is part of the package, for the demo and for tests."""

from pathlib import Path

__all__ = ["bundled"]


def bundled() -> Path:
    """Return the path of the demo recording: 2.5 days of all games of the bundled catalogue, zstd-compressed JSONL."""
    return Path(__file__).with_name("demo.jsonl.zst")
