"""The checks of a round that every client receives: the format of the contract, on the raw text."""

import json
import re
import time
from typing import Any, Final

_GIVEN_FIRST: Final = ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp"]
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_FRESH_MS: Final = 10_000


def checked(text: str | bytes) -> dict[str, Any]:
    """Decode one message and check that it is a live round in the format of the contract."""
    round_: dict[str, Any] = json.loads(text)
    assert list(round_) == [*_GIVEN_FIRST, "cursor"], text
    assert isinstance(round_["round_id"], int)
    assert _MOMENT.fullmatch(round_["finished_at"]), round_["finished_at"]
    assert isinstance(round_["extras"], str)
    assert all(isinstance(value, str) for value in _leaves(json.loads(round_["extras"]))), round_["extras"]
    assert abs(time.time() * 1000 - round_["timestamp"]) < _FRESH_MS
    assert re.fullmatch(r"[A-Za-z0-9]+-\d+", round_["cursor"]), round_["cursor"]
    return round_


def sequence(round_: dict[str, Any]) -> int:
    """The sequence of a round in the log, from its cursor."""
    return int(round_["cursor"].rpartition("-")[2])


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]
