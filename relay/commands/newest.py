"""Describe the newest round of the log, for an operator who checks the state of capture."""

import time

import msgspec

from roundlog.client.codes import ErrorCode
from roundlog.client.connection import connect
from roundlog.leader import ask_leader
from roundlog.log_errors import LogError
from roundlog.log_settings import LogSettings
from rounds.subjects import LOG_SUBJECTS


class _Round(msgspec.Struct):
    round_id: int
    game_slug: str
    timestamp: int
    revision: int = 1


async def newest_round(settings: LogSettings) -> str:
    """Return its game, its id and how long ago it was committed, or why that is not known. Changes nothing."""
    try:
        async with connect(settings, name="status") as connection:
            reply = await ask_leader(connection, settings.stream, {"last_by_subj": LOG_SUBJECTS})
    except LogError as error:
        return f"unknown: {error}"
    if reply.message is not None:
        newest = msgspec.json.decode(reply.message.data, type=_Round)
        of = "" if newest.revision == 1 else f" (revision {newest.revision})"
        return f"{newest.game_slug} {newest.round_id}{of}, {time.time() - newest.timestamp / 1000:.1f} s ago"
    if reply.error.err_code != ErrorCode.MESSAGE_NOT_FOUND:
        return f"unknown: {reply.error.description}"
    return "no rounds yet"
