"""A relay under a flood of large rounds, so that a client that does not read is soon over every buffer on the way."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.clients.live_relay import LiveRelay, live_relay

ROUND_BYTES: Final = 60_000
_ROUNDS: Final = 200
_PER_S: Final = 40
"""2.4 MB/s: beyond the kernel's buffers and the relay's limit within seconds, and well within one core."""
_UNSENT_BYTES: Final = 256 << 10


def write_recording(path: Path) -> None:
    """Write rounds of one game, one a second by their own clock, each with a large piece of extras."""
    began = datetime(2026, 1, 18, 10, tzinfo=UTC)
    with path.open("w", encoding="utf-8") as lines:
        for number in range(_ROUNDS):
            moment = began + timedelta(seconds=number)
            round_ = {
                "round_id": number + 1,
                "game_slug": "crash",
                "game_type": "multiplier",
                "finished_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "extras": json.dumps({"point": "2.50", "ballast": "x" * ROUND_BYTES}),
                "timestamp": int(moment.timestamp() * 1000),
            }
            lines.write(json.dumps(round_) + "\n")


@contextmanager
def flooded_relay(folder: Path, *, linger_s: float) -> Iterator[LiveRelay]:
    """Run a relay that plays such a recording over and over; an ended client has `linger_s` to read its goodbye."""
    recording = folder / "flood.jsonl"
    write_recording(recording)
    settings = {
        "RELAY_BACKEND_NAME": "file",
        "RELAY_BACKEND_PATH": str(recording),
        "RELAY_BACKEND_LOOP": "true",
        "RELAY_BACKEND_SHIFT_TO_NOW": "true",
        "RELAY_BACKEND_SPEED": str(_PER_S),
        "RELAY_LINKS_UNSENT_BYTES": str(_UNSENT_BYTES),
        "RELAY_LINKS_LINGER_S": str(linger_s),
        "RELAY_LOG_LEVEL": "info",
        "RELAY_LOG_FORMAT": "json",
    }
    with live_relay(settings) as relay:
        yield relay
