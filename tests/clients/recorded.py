"""Relays that play a recording made for the test, with rounds of one game of the required size and rate."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.clients.live_relay import LiveRelay, live_relay

FLOOD_ROUND_BYTES: Final = 60_000
_ROUNDS: Final = 200
_PER_S: Final = 40
_UNSENT_BYTES: Final = 256 << 10


@contextmanager
def brisk_relay(folder: Path) -> Iterator[LiveRelay]:
    """Run a relay with 40 ordinary rounds of `crash` a second, to which an EventSource reconnects at once."""
    with live_relay(_playing(folder, ballast_bytes=0) | {"RELAY_LINKS_RETRY_MS": "50"}) as relay:
        yield relay


@contextmanager
def flooded_relay(folder: Path, *, linger_s: float) -> Iterator[LiveRelay]:
    """Run a relay under 2.4 MB/s, so that a client that does not read soon fills every buffer.

    An ended client has `linger_s` to read its disconnect; each end is logged.
    """
    settings = _playing(folder, ballast_bytes=FLOOD_ROUND_BYTES) | {
        "RELAY_LINKS_UNSENT_BYTES": str(_UNSENT_BYTES),
        "RELAY_LINKS_LINGER_S": str(linger_s),
        "RELAY_LOG_LEVEL": "info",
        "RELAY_LOG_FORMAT": "json",
    }
    with live_relay(settings) as relay:
        yield relay


def _playing(folder: Path, *, ballast_bytes: int) -> dict[str, str]:
    """Write a recording with one round a second of its own time; return settings that play it fast and in a loop."""
    began = datetime(2026, 1, 18, 10, tzinfo=UTC)
    recording = folder / "recording.jsonl"
    with recording.open("w", encoding="utf-8") as lines:
        for number in range(_ROUNDS):
            moment = began + timedelta(seconds=number)
            round_ = {
                "round_id": number + 1,
                "game_slug": "crash",
                "game_type": "multiplier",
                "finished_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "extras": json.dumps({"point": "2.50", "ballast": "x" * ballast_bytes}),
                "timestamp": int(moment.timestamp() * 1000),
            }
            lines.write(json.dumps(round_) + "\n")
    return {
        "RELAY_BACKEND_NAME": "file",
        "RELAY_BACKEND_PATH": str(recording),
        "RELAY_BACKEND_LOOP": "true",
        "RELAY_BACKEND_SHIFT_TO_NOW": "true",
        "RELAY_BACKEND_SPEED": str(_PER_S),
    }
