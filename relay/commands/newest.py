"""Say which round is the newest in the log: for an operator who asks how capture stands."""

import time

import msgspec
from nats.errors import Error as NatsError

from roundlog.connection import connect, sentence
from roundlog.errors import LogError
from roundlog.leader import NO_MESSAGE, ask_leader
from roundlog.settings import LogSettings
from rounds.subjects import LOG_SUBJECTS


class _Round(msgspec.Struct):
    round_id: int
    game_slug: str
    timestamp: int


async def newest_round(settings: LogSettings) -> str:
    """Return its game, its id and how long ago it was committed, or why that cannot be told. Changes nothing."""
    try:
        async with connect(settings, name="status") as nc:
            answer = await ask_leader(nc, settings.stream, {"last_by_subj": LOG_SUBJECTS})
    except (LogError, NatsError, OSError) as error:  # TimeoutError is an OSError
        return f"cannot be told: {error if isinstance(error, LogError) else sentence(error)}"
    if answer.message is not None:
        newest = msgspec.json.decode(answer.message.data, type=_Round)
        return f"{newest.game_slug} {newest.round_id}, {time.time() - newest.timestamp / 1000:.1f} s ago"
    if answer.error.err_code != NO_MESSAGE:
        return f"cannot be told: {answer.error.description}"
    return "no rounds yet"
