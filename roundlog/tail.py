"""Read the ids and offsets of the rounds at the end of the log, so that no round is stored twice.

Owns the reading of stored headers. nats-server itself knows ids for its duplicate window only, two minutes by default.
Knows nothing of the rounds' data.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from roundlog.client.connection import Connection
from roundlog.direct_get import AnswerEnd, TooManyResults, direct_get_subject
from rounds.subjects import LOG_SUBJECTS

_ANSWER_S: Final = 10.0
_BEHIND_TRIES: Final = 20
_BEHIND_PAUSE_S: Final = 0.1
_PAGE: Final = 2_000
_PAGE_BYTES: Final = 4 << 20
_GAMES: Final = 1_000
_OF_ROUNDS: Final = {"next_by_subj": LOG_SUBJECTS}


OFFSET_HEADER: Final = "Relay-Position"
"""The header that carries a round's offset in its source, ``source:offset``. Optional."""


class TailPage(NamedTuple):
    """The headers of some rounds of the log, in its order."""

    ids: list[bytes]
    offsets: list[str]  # one for each round that has one
    last: int  # the sequence of the newest message in it; 0: there are none


async def stored_ids(connection: Connection, stream: str, *, first: int, last: int) -> AsyncIterator[list[bytes]]:
    """Yield, page by page, the ids of the rounds stored at sequences `first` to at least `last`; see `stored_pages`."""
    async for page in stored_pages(connection, stream, first=first, last=last):
        yield page.ids


async def stored_pages(connection: Connection, stream: str, *, first: int, last: int) -> AsyncIterator[TailPage]:
    """Yield, page by page, the headers of the rounds stored at sequences `first` to at least `last`.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    tries = _BEHIND_TRIES
    while first <= last:
        page = await _page(connection, stream, {"seq": first, "batch": _PAGE, "max_bytes": _PAGE_BYTES, **_OF_ROUNDS})
        if page.last:
            yield page
            first = page.last + 1
        elif tries:
            # The replica that answered may be behind. Or the rest was deleted: then all replicas answer so.
            tries -= 1
            await asyncio.sleep(_BEHIND_PAUSE_S)
        else:
            return


async def first_since(connection: Connection, stream: str, moment: datetime) -> int:
    """Return the sequence of the first round stored at `moment` or later; 0 when there is none.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    return (await _page(connection, stream, {"start_time": moment.isoformat(), "batch": 1, **_OF_ROUNDS})).last


async def newest_ids(connection: Connection, stream: str) -> dict[str, int]:
    """Return the id of the newest round of each game that the log has rounds of.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    found: dict[str, int] = {}
    page = await _page(connection, stream, {"multi_last": [LOG_SUBJECTS], "batch": _GAMES})
    for msg_id in page.ids:
        game, _, number = msg_id.decode().rpartition(":")
        if number.isdigit():
            found[game] = int(number)
    return found


async def newest_sequences(connection: Connection, stream: str) -> dict[bytes, int] | None:
    """Return the sequence of the newest round of each subject of the log; None: it has more subjects than one answer.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    found: dict[bytes, int] = {}
    try:
        await _page(connection, stream, {"multi_last": [LOG_SUBJECTS], "batch": _GAMES}, found)
    except TooManyResults:
        return None
    return found if len(found) < _GAMES else None


async def _page(
    connection: Connection, stream: str, request: dict[str, Any], by_subject: dict[bytes, int] | None = None
) -> TailPage:
    ids: list[bytes] = []
    offsets: list[str] = []
    last = 0
    ended: asyncio.Future[AnswerEnd] = asyncio.get_running_loop().create_future()

    async def collect(message: Msg) -> None:
        nonlocal last
        headers = message.headers or {}
        if end := AnswerEnd.of_headers(headers):
            if not ended.done():
                ended.set_result(end)
            return
        last = int(headers["Nats-Sequence"])
        if by_subject is not None:
            by_subject[headers["Nats-Subject"].encode()] = last
        if msg_id := headers.get("Nats-Msg-Id"):
            ids.append(msg_id.encode())
        if offset := headers.get(OFFSET_HEADER):
            offsets.append(offset)

    inbox, subject = connection.new_inbox(), direct_get_subject(stream)
    subscription = await connection.subscribe(inbox, collect)
    with connection.asking(subject, "the log's tail cannot be read"):
        async with asyncio.timeout(_ANSWER_S):
            await connection.publish(subject, msgspec.json.encode(request), reply=inbox)
            end = await ended
    await connection.unsubscribe(subscription)
    if end.error is not None:
        raise end.error
    return TailPage(ids, offsets, last)
