"""What the log remembers of a source: the offsets that its rounds carry, and those that are kept beside it.

Owns the stream ``POSITIONS`` and how far back the log is read when a source begins. Implements
`SourceOffsets`; what an offset means is up to the backend. Why: docs/adr/0011-the-log-is-the-checkpoint.md
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any, Final, Generic, Self, TypeVar

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from backends.contract import KeptOffset, OffsetTaken
from backends.publish.settings import PublisherSettings
from roundlog.backoff import Backoff
from roundlog.connection import connect, sentence
from roundlog.errors import LogUnavailable
from roundlog.leader import NO_MESSAGE, NO_STREAM, ask_leader
from roundlog.settings import LogSettings
from roundlog.stream import LogInfo, open_log
from roundlog.tail import newest_ids, stored_pages

log = structlog.get_logger()

P = TypeVar("P")

STREAM: Final = "POSITIONS"
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = (0.1, 5.0)
_STEP: Final = 10_000
_IN_ORDER: Final = 1_000
_OUT_OF_ORDER: Final = 8_192
"""In a replicated log a round may stand before so many that were read before it: the most that may be in flight."""

_EXISTS: Final = 10058
_OTHER_SEQUENCE: Final = 10071
_UNAVAILABLE: Final = 503
_NOT_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


class _Record(msgspec.Struct):
    """What is stored in ``POSITIONS``, one per source."""

    source: str
    offset: str = msgspec.field(name="place")  # as existing records have it
    note: str = ""
    epoch: str = ""
    last: int = 0
    kept_at: int = 0
    writer: str = ""


class LogOffsets(Generic[P]):
    """Implements `backends.contract.SourceOffsets` over a connection of its own, made when it is first needed."""

    def __init__(
        self,
        log_settings: LogSettings,
        settings: PublisherSettings | None = None,
        *,
        learn: Callable[[set[bytes]], None] = lambda _ids: None,
        stored: Callable[[], P | None] = lambda: None,
    ) -> None:
        """Prepare; `learn` is given the ids that a `recall` found, `stored` is asked for the property of that name."""
        self._log_settings = log_settings
        self._settings = settings or PublisherSettings()
        self._learn = learn
        self._stored = stored
        self._stack = AsyncExitStack()
        self._nc: Client | None = None
        self._writer = secrets.token_hex(8)
        self._sequences: dict[str, int] = {}  # of what was kept last, as far as we know
        self._can_keep = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._nc = None

    @property
    def stored(self) -> P | None:
        return self._stored()

    async def kept(self, source: str) -> KeptOffset | None:
        record = await self._patiently(lambda nc: self._read(nc, source))
        if record is None:
            return None
        return KeptOffset(record.offset, record.note, record.epoch, record.last)

    async def recall(self, source: str, comes_again: Callable[[str], bool], *, since: KeptOffset | None = None) -> None:
        async def look(nc: Client) -> set[bytes]:
            info = await open_log(nc, self._log_settings)
            return await self._look_back(nc, info, f"{source}:", comes_again, since)

        self._learn(await self._patiently(look))

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        while self._can_keep:
            if await self._patiently(lambda nc: self._write(nc, source, offset, note)):
                return True
        return False

    async def newest(self) -> Mapping[str, int]:
        async def look(nc: Client) -> dict[str, int]:
            return await newest_ids(nc, (await open_log(nc, self._log_settings)).stream)

        found: dict[str, int] = await self._patiently(look)
        return found

    # --- looking back -------------------------------------------------------------------------------------------

    async def _look_back(
        self, nc: Client, info: LogInfo, prefix: str, comes_again: Callable[[str], bool], since: KeptOffset | None
    ) -> set[bytes]:
        """Read from the log's end towards its beginning until rounds of the source do not come again."""
        settings = self._settings
        floor = max(info.first, info.last + 1 - max(settings.recall_rounds, settings.tail_rounds))
        enough = max(info.first, info.last + 1 - settings.tail_rounds)
        if since is not None and since.epoch == info.epoch:
            enough = max(info.first, since.last + 1 - _OUT_OF_ORDER)
        step = _IN_ORDER if info.replicas == 1 else _OUT_OF_ORDER
        known: set[bytes] = set()
        found = False
        upper = info.last
        while upper >= floor:
            lower = max(floor, upper + 1 - step)
            own = again = False
            async for page in stored_pages(nc, info.stream, first=lower, last=upper):
                known.update(page.ids)
                for offset, _ in groupby(page.offsets):
                    if offset.startswith(prefix):
                        own = True
                        again |= comes_again(offset[len(prefix) :])
            found |= own
            if (own and not again) or (lower <= enough and (since is not None or not found)):
                return known
            upper, step = lower - 1, _STEP
        if floor > info.first:
            log.warning("tail_not_covered", rounds=len(known), until=floor, hint="raise RELAY_PUBLISH_RECALL_ROUNDS")
        return known

    # --- keeping ------------------------------------------------------------------------------------------------

    async def _read(self, nc: Client, source: str) -> _Record | None:
        try:
            answer = await ask_leader(nc, STREAM, {"last_by_subj": _subject(source)})
        except NoRespondersError:
            return None  # no JetStream: whoever opens the log says so
        self._sequences[source] = 0
        if answer.message is not None:
            self._sequences[source] = answer.message.seq
            return msgspec.json.decode(answer.message.data, type=_Record)
        if answer.error.err_code in (NO_MESSAGE, NO_STREAM):
            return None
        raise LogUnavailable(f"stream {STREAM} cannot be read: {answer.error.description}")

    async def _write(self, nc: Client, source: str, offset: str, note: str) -> bool:
        """Store an offset if nobody else has since; whether that is done, or has to be tried again."""
        if source not in self._sequences:
            await self._read(nc, source)
        info = await open_log(nc, self._log_settings)
        now_ms = int(time.time() * 1000)
        body = msgspec.json.encode(_Record(source, offset, note, info.epoch, info.last, now_ms, self._writer))
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self._sequences.get(source, 0))}
        try:
            answer = await nc.request(_subject(source), body, _ANSWER_S, headers=headers)
        except NoRespondersError:
            await self._make_stream(nc)
            return False
        decoded = msgspec.json.decode(answer.data)
        error = decoded.get("error")
        if not error:
            self._sequences[source] = decoded["seq"]
            return True
        if error.get("err_code") != _OTHER_SEQUENCE:
            raise LogUnavailable(f"stream {STREAM} takes nothing: {error.get('description')}")
        record = await self._read(nc, source)
        if record is not None and record.writer != self._writer:
            raise OffsetTaken(f"another process reads {source}")
        return False  # our own, whose ack was lost

    async def _make_stream(self, nc: Client) -> None:
        """Make the stream that is missing; where that is not allowed, offsets are not kept from now on."""
        if not self._log_settings.create:
            self._cannot_keep("it does not exist, and RELAY_NATS_CREATE is off")
            return
        wanted = {
            "name": STREAM,
            "subjects": ["positions.*"],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "num_replicas": self._log_settings.replicas,
        }
        answer = await nc.request(f"$JS.API.STREAM.CREATE.{STREAM}", msgspec.json.encode(wanted), _ANSWER_S)
        error = msgspec.json.decode(answer.data).get("error")
        if error and error.get("code") == _UNAVAILABLE:
            raise LogUnavailable(f"stream {STREAM} cannot be made: {error.get('description')}")
        if error and error.get("err_code") != _EXISTS:
            self._cannot_keep(error.get("description", "no reason given"))

    def _cannot_keep(self, reason: str) -> None:
        self._can_keep = False
        log.error("positions_not_kept", stream=STREAM, error=reason)

    # --- the connection -----------------------------------------------------------------------------------------

    async def _patiently(self, ask: Callable[[Client], Any]) -> Any:
        """Ask the log, however long it is away."""
        backoff, told = Backoff(*_PAUSE_S), False
        while True:
            try:
                if self._nc is None:
                    self._nc = await self._stack.enter_async_context(connect(self._log_settings, name="offsets"))
                return await ask(self._nc)
            except (NatsError, LogUnavailable, OSError) as error:  # TimeoutError is an OSError
                if not told:
                    log.warning("places_awaited", error=sentence(error))
                told = True
            await asyncio.sleep(backoff.next_s())


def _subject(source: str) -> str:
    return f"positions.{_NOT_TOKEN.sub('_', source)}"
