"""Read what the log holds, so that no round is stored twice: ids and offsets of its tail, and whole corrections.

Owns the reading of stored headers. nats-server itself knows ids for its duplicate window only, two minutes by default.
Ids are read as `rounds.dedup_id` writes them, without what `rounds.subjects.resent_id` adds. Knows nothing of the
rounds' data.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from roundlog.client.api import ApiError, ask_api
from roundlog.client.codes import NatsStatus
from roundlog.client.connection import Connection
from roundlog.direct_get import AnswerEnd, TooManyResults, direct_get_subject
from roundlog.leader import StoredMessage, ask_leader
from roundlog.log_errors import LogUnavailable
from roundlog.parser import game_in
from rounds.subjects import LOG_SUBJECTS, is_corrections, parse_dedup_id, plain_id

_ANSWER_S: Final = 10.0
_BEHIND_TRIES: Final = 20
_BEHIND_PAUSE_S: Final = 0.1
_PAGE: Final = 2_000
_PAGE_BYTES: Final = 4 << 20
_GAMES: Final = 1_000
_ALL: Final = {"next_by_subj": ">"}
"""By sequence, whatever the subjects: the server searches nothing. What is no round is passed over here."""
_ID_HEADER: Final = re.compile(rb"\r\nNats-Msg-Id: *([^\r]*)\r\n", re.IGNORECASE)

OFFSET_HEADER: Final = "Relay-Position"
"""The header that carries a round's offset in its source, ``source:offset``. Optional."""


class TailPage(NamedTuple):
    """The headers of some rounds of the log, in its order."""

    ids: list[bytes]
    offsets: list[str]  # of the same rounds; empty: it has none
    last: int  # the sequence of the newest message in it; 0: there are none
    sequences: list[int]  # of the same rounds
    data: list[bytes]  # of the same rounds


async def stored_ids(connection: Connection, stream: str, *, first: int, last: int) -> AsyncIterator[list[bytes]]:
    """Yield, page by page, the ids of the rounds stored at sequences `first` to at least `last`; see `stored_pages`."""
    async for page in stored_pages(connection, stream, first=first, last=last):
        yield page.ids


async def stored_pages(
    connection: Connection, stream: str, *, first: int, last: int, subject: str = LOG_SUBJECTS
) -> AsyncIterator[TailPage]:
    """Yield, page by page, the rounds stored at sequences `first` to at least `last`, under `subject`.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    tries = _BEHIND_TRIES
    while first <= last:
        wanted = _ALL if subject == LOG_SUBJECTS else {"next_by_subj": subject}
        request = {"seq": first, "batch": _PAGE, "max_bytes": _PAGE_BYTES, **wanted}
        page = await _page(connection, stream, request)
        if page.last:
            yield page
            first = page.last + 1
        elif tries:
            # The replica that answered may be behind. Or the rest was deleted: then all replicas answer so.
            tries -= 1
            await asyncio.sleep(_BEHIND_PAUSE_S)
        else:
            return


async def ids_at(connection: Connection, stream: str, sequences: Iterable[int]) -> dict[int, bytes]:
    """Return the id of the round stored at each of these sequences, where there is one.

    A replica that is behind may have answered: the newest rounds can be missing.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    found: dict[int, bytes] = {}
    wanted = sorted(sequences)
    at = 0
    while at < len(wanted):
        first = wanted[at]
        last = wanted[bisect_right(wanted, first + _PAGE - 1) - 1]
        request = {"seq": first, "batch": last - first + 1, "max_bytes": _PAGE_BYTES, **_ALL}
        page = await _page(connection, stream, request)
        found.update(zip(page.sequences, page.ids, strict=True))
        # An answer can be cut by its size; where it is empty, nothing of these is stored.
        at = bisect_right(wanted, max(page.last, first) if page.last else last)
    return {sequence: found[sequence] for sequence in wanted if sequence in found}


async def id_of_leader(connection: Connection, stream: str, sequence: int) -> bytes | None:
    """Return the id of the round at this sequence as the stream's leader has it; None: there is none.

    Raises:
        LogUnavailable: No answer in time, no leader, or the connection is lost.
    """
    message = await _of_leader(connection, stream, {"seq": sequence})
    match = None if message is None else _ID_HEADER.search(message.hdrs)
    return None if match is None else plain_id(match[1].decode()).encode()


async def data_of_leader(connection: Connection, stream: str, sequence: int) -> bytes | None:
    """Return the data of the round at this sequence as the stream's leader has it; None: there is none.

    Raises:
        LogUnavailable: No answer in time, no leader, or the connection is lost.
    """
    message = await _of_leader(connection, stream, {"seq": sequence})
    return None if message is None else message.data


async def _of_leader(connection: Connection, stream: str, request: dict[str, Any]) -> StoredMessage | None:
    reply = await ask_leader(connection, stream, request)
    if reply.message is None and reply.error.code != NatsStatus.NOT_FOUND:
        raise LogUnavailable(f"the log's leader answered {reply.error.description!r}")
    return reply.message


async def corrections_ends(connection: Connection, stream: str) -> dict[str, int]:
    """Return each subject under which the log holds corrections, with the sequence of its newest.

    Raises:
        LogUnavailable: No answer in time, no leader, or the connection is lost.
    """
    info = await ask_api(connection, f"STREAM.INFO.{stream}", {"subjects_filter": LOG_SUBJECTS}, _Subjects)
    if info.error is not None:
        raise LogUnavailable(f"the log's subjects cannot be read: {info.error.description}")
    ends: dict[str, int] = {}
    for subject in filter(is_corrections, info.state.subjects or {}):
        newest = await _of_leader(connection, stream, {"last_by_subj": subject})
        if newest is not None:
            ends[subject] = newest.seq
    return ends


class _State(msgspec.Struct, frozen=True):
    subjects: dict[str, int] | None = None


class _Subjects(msgspec.Struct):
    """What the API says of a stream's subjects."""

    state: _State = _State()
    error: ApiError | None = None


async def first_since(connection: Connection, stream: str, moment: datetime) -> int:
    """Return the sequence of the first round stored at `moment` or later; 0 when there is none.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    return (await _page(connection, stream, {"start_time": moment.isoformat(), "next_by_subj": LOG_SUBJECTS})).last


async def newest_ids(connection: Connection, stream: str) -> dict[str, int]:
    """Return the id of the newest round of each game that the log has rounds of. Corrections do not count.

    Raises:
        LogUnavailable: No answer in time, or the connection is lost.
    """
    found: dict[str, int] = {}
    page = await _page(connection, stream, {"multi_last": [LOG_SUBJECTS], "batch": _GAMES})
    for msg_id in page.ids:
        parsed = parse_dedup_id(msg_id.decode())
        if parsed is not None and parsed.revision == 1:
            found[parsed.game_slug] = parsed.round_id
    return found


async def newest_sequences(connection: Connection, stream: str) -> dict[bytes, int] | None:
    """Return the sequence of the newest message of each subject of the log; None: it has more subjects than one answer.

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
    """Read what `request` asks for. Without a batch, the answer is one message, which the server need not count."""
    page = TailPage([], [], 0, [], [])
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
        if "batch" not in request and not ended.done():
            ended.set_result(AnswerEnd(NatsStatus.END_OF_BATCH, "", 0))
        if game_in(headers["Nats-Subject"].encode()) is None:
            return
        if by_subject is not None:
            by_subject[headers["Nats-Subject"].encode()] = last
        if msg_id := headers.get("Nats-Msg-Id"):
            page.ids.append(plain_id(msg_id).encode())
            page.offsets.append(headers.get(OFFSET_HEADER, ""))
            page.sequences.append(last)
            page.data.append(message.data)

    inbox, subject = connection.new_inbox(), direct_get_subject(stream)
    subscription = await connection.subscribe(inbox, collect)
    with connection.asking(subject, "the log's tail cannot be read"):
        async with asyncio.timeout(_ANSWER_S):
            await connection.publish(subject, msgspec.json.encode(request), reply=inbox)
            end = await ended
    await connection.unsubscribe(subscription)
    if end.error is not None:
        raise end.error
    return page._replace(last=last)
