"""Read what the log has, over a connection of its own that no fault touches. Independent of the code under test.

Owns the record of all entries, also of those that were removed since: faults that remove entries read them first.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import nats
import nats.errors
from nats.aio.client import Client

from rounds.cursor import epoch_of
from tests.faults.values import Entry, Key, LogRecord

STREAM: Final = "ROUNDS"
_PAGE: Final = 1000
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = 0.25
_TIMES_BEHIND: Final = 8
Answer = dict[str, Any]


class ApiError(Exception):
    """JetStream refused a request, or nobody answered it."""


@asynccontextmanager
async def admin(urls: list[str]) -> AsyncIterator[Client]:
    """Connect to any of the servers."""

    async def quiet(_error: Exception) -> None:
        pass

    client = await nats.connect(urls, name="judge", connect_timeout=3, error_cb=quiet, max_reconnect_attempts=1)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Client, call: str, request: Mapping[str, object] | None = None) -> Answer:
    """Call an API of JetStream.

    Raises:
        ApiError: It was refused or not answered.
    """
    body = b"" if request is None else json.dumps(request).encode()
    try:
        message = await client.request(f"$JS.API.{call}", body, timeout=_ANSWER_S)
    except (nats.errors.Error, TimeoutError) as error:
        raise ApiError(f"{call}: {error!r}") from error
    answer: Answer = json.loads(message.data)
    if "error" in answer:
        raise ApiError(f"{call}: {answer['error']}")
    return answer


async def update_record(client: Client, record: LogRecord) -> None:
    """Read the entries that the record lacks, and the bounds of the log.

    Raises:
        ApiError: The log has no leader, or does not answer.
    """
    info = await ask(client, f"STREAM.INFO.{STREAM}")
    state = info["state"]
    record.epoch = record.epoch or _epoch(info["created"])
    newest = max(record.entries, default=0)
    await _read(client, record, newest + 1, state["last_seq"])
    record.head = state["last_seq"]
    record.purged_to = max(record.purged_to, state["first_seq"] - 1)


async def _read(client: Client, record: LogRecord, first: int, last: int) -> None:
    at, behind = first, 0
    while at <= last:
        page = await _page(client, at)
        for entry in page:
            record.entries.setdefault(entry.sequence, entry)  # pages come in order, and so do their entries
        if page:
            at = max(entry.sequence for entry in page) + 1
        elif (behind := behind + 1) < _TIMES_BEHIND:
            await asyncio.sleep(_PAUSE_S)  # a replica that is behind has answered
        else:
            return  # the newest entries were removed


async def _page(client: Client, first: int) -> list[Entry]:
    """Read up to a page of entries from a sequence on."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    request = {"seq": first, "batch": _PAGE, "next_by_subj": "rounds.*"}
    await client.publish(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(request).encode(), reply=inbox)
    found: list[Entry] = []
    try:
        while True:
            message = await subscription.next_msg(timeout=_ANSWER_S)
            headers = message.headers or {}
            if headers.get("Status"):
                return found
            fields = json.loads(message.data)
            key = Key(fields["game_slug"], fields["round_id"])
            found.append(Entry(int(headers["Nats-Sequence"]), key, json.loads(fields["extras"])))
    except (nats.errors.Error, TimeoutError) as error:
        raise ApiError(f"a page from {first}: {error!r}") from error
    finally:
        await subscription.unsubscribe()


def _epoch(created: str) -> str:
    return epoch_of(int(datetime.fromisoformat(created).timestamp() * 1000))


async def retrying(
    client: Client, call: str, request: Mapping[str, object] | None = None, *, times: int = 40
) -> Answer:
    """Call an API until it answers: during an election nobody does."""
    for attempt in range(times):
        try:
            return await ask(client, call, request)
        except ApiError:
            if attempt == times - 1:
                raise
            await asyncio.sleep(_PAUSE_S)
    raise AssertionError
