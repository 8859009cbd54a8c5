"""Say which round is the newest in the log: for an operator who asks how capture stands."""

import time
from typing import Final

import msgspec
from nats.errors import Error as NatsError

from backends.connection import connect, sentence
from backends.log_settings import LogError, LogSettings
from rounds.subjects import LOG_SUBJECTS

_ANSWER_S: Final = 5.0
_NO_MESSAGE: Final = 10037


class _Stored(msgspec.Struct):
    data: bytes  # msgspec reads base64


class _Fault(msgspec.Struct):
    description: str = "no reason given"
    err_code: int = 0


class _Answer(msgspec.Struct):
    message: _Stored | None = None
    error: _Fault | None = None


class _Round(msgspec.Struct):
    round_id: int
    game_slug: str
    timestamp: int


async def newest_round(settings: LogSettings) -> str:
    """Return its game, its id and how long ago it was committed, or why that cannot be told. Changes nothing."""
    try:
        async with connect(settings, name="status") as nc:
            ask = msgspec.json.encode({"last_by_subj": LOG_SUBJECTS})
            reply = await nc.request(f"$JS.API.STREAM.MSG.GET.{settings.stream}", ask, _ANSWER_S)
    except (LogError, NatsError, OSError) as error:  # TimeoutError is an OSError
        return f"cannot be told: {error if isinstance(error, LogError) else sentence(error)}"
    answer = msgspec.json.decode(reply.data, type=_Answer)
    if answer.message is not None:
        newest = msgspec.json.decode(answer.message.data, type=_Round)
        return f"{newest.game_slug} {newest.round_id}, {time.time() - newest.timestamp / 1000:.1f} s ago"
    if answer.error is not None and answer.error.err_code != _NO_MESSAGE:
        return f"cannot be told: {answer.error.description}"
    return "no rounds yet"
