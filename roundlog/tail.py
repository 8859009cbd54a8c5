"""Read which rounds the end of the log holds, so that nothing is stored twice however long ago it was.

The server itself knows ids for its duplicate window only, two minutes by default.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from roundlog.errors import LogUnavailable
from rounds.subjects import LOG_SUBJECTS

_ANSWER_S: Final = 10.0
_BEHIND_TRIES: Final = 20
_BEHIND_PAUSE_S: Final = 0.1
_PAGE: Final = 2_000
_PAGE_BYTES: Final = 4 << 20
_GAMES: Final = 1_000
_OF_ROUNDS: Final = {"next_by_subj": LOG_SUBJECTS}


OFFSET_HEADER: Final = "Relay-Position"
"""The header in which a round carries its offset in its source, ``source:offset``; not every round has one."""


class Page(NamedTuple):
    """Some rounds of the log, in its order."""

    ids: list[bytes]
    offsets: list[str]  # one for each round that has one
    last: int  # the sequence of the newest message in it; 0: there are none


async def stored_ids(nc: Client, stream: str, *, first: int, last: int) -> AsyncIterator[list[bytes]]:
    """Yield, page by page, the ids of the rounds stored at sequences `first` to at least `last`; see `stored_pages`."""
    async for page in stored_pages(nc, stream, first=first, last=last):
        yield page.ids


async def stored_pages(nc: Client, stream: str, *, first: int, last: int) -> AsyncIterator[Page]:
    """Yield, page by page, what is known of the rounds stored at sequences `first` to at least `last`.

    Uses batched direct get, which leaves no state in the server:
    https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md

    Raises:
        LogUnavailable: No answer in time, or the connection broke.
    """
    tries = _BEHIND_TRIES
    while first <= last:
        page = await _page(nc, stream, {"seq": first, "batch": _PAGE, "max_bytes": _PAGE_BYTES, **_OF_ROUNDS})
        if page.last:
            yield page
            first = page.last + 1
        elif tries:
            # Any replica may answer, and one may be behind. Or the rest was deleted: then all of them say so.
            tries -= 1
            await asyncio.sleep(_BEHIND_PAUSE_S)
        else:
            return


async def first_since(nc: Client, stream: str, moment: datetime) -> int:
    """Return the sequence of the first round stored at `moment` or later; 0 when there is none.

    Raises:
        LogUnavailable: No answer in time, or the connection broke.
    """
    return (await _page(nc, stream, {"start_time": moment.isoformat(), "batch": 1, **_OF_ROUNDS})).last


async def newest_ids(nc: Client, stream: str) -> dict[str, int]:
    """Return the id of the newest round of each game that the log has rounds of.

    Raises:
        LogUnavailable: No answer in time, or the connection broke.
    """
    found: dict[str, int] = {}
    page = await _page(nc, stream, {"multi_last": [LOG_SUBJECTS], "batch": _GAMES})
    for msg_id in page.ids:
        game, _, number = msg_id.decode().rpartition(":")
        if number.isdigit():
            found[game] = int(number)
    return found


async def _page(nc: Client, stream: str, request: dict[str, Any]) -> Page:
    ids: list[bytes] = []
    offsets: list[str] = []
    last = 0
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def collect(message: Msg) -> None:
        nonlocal last
        headers = message.headers or {}
        if status := headers.get("Status"):
            if not ended.done():
                ended.set_result(f"{status} {headers.get('Description', '')}".strip())
            return
        last = int(headers["Nats-Sequence"])
        if msg_id := headers.get("Nats-Msg-Id"):
            ids.append(msg_id.encode())
        if offset := headers.get(OFFSET_HEADER):
            offsets.append(offset)

    inbox = nc.new_inbox()
    body = msgspec.json.encode(request)
    try:
        subscription = await nc.subscribe(inbox, cb=collect)
        async with asyncio.timeout(_ANSWER_S):
            await nc.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=inbox)
            status = await ended
        await subscription.unsubscribe()
    except (NatsError, TimeoutError, OSError) as error:
        raise LogUnavailable(f"the log's tail cannot be read: {str(error) or type(error).__name__}") from error
    if not status.startswith(("204", "404")):  # 204: end of the batch; 404: nothing there
        raise LogUnavailable(f"the log's tail cannot be read: {status}")
    return Page(ids, offsets, last)
