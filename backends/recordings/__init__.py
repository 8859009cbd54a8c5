"""Recordings that come with the product, for trying it out and for tests."""

from pathlib import Path

__all__ = ["bundled"]


def bundled() -> Path:
    """Return the demo recording: a weekend of all games of the bundled catalogue, as JSONL compressed with zstd."""
    return Path(__file__).with_name("demo.jsonl.zst")
