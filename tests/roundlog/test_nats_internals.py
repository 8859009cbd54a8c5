"""The private parts of nats-py: in use where they are as known, and replaced by the public API where they are not."""

import asyncio
import socket
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import Parser
from structlog.testing import capture_logs

from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client import nats_internals
from roundlog.client.connection import connect
from roundlog.client.nats_internals import (
    TRIED,
    ConnectionParser,
    abort,
    attach,
    drop_unsent,
    has_writer,
    holdable,
    read_at_once,
)
from roundlog.entry import LogEntry
from roundlog.live import LiveSubscription
from roundlog.log_settings import LogSettings
from roundlog.parser import RoundFrames
from roundlog.publish.answers import Acks, ErrorAck
from roundlog.publish.hpub import Publish, offset_header
from roundlog.publish.publish_connection import open_publish_connection
from roundlog.reader import LogReader
from roundlog.stream import open_log
from roundlog.tail import stored_pages
from tests.backends.harness import DeadLetters, Source
from tests.nats import NatsServer
from tests.network.streams import connected, serving
from tests.waiting import until

_COUNT = 300
_HELD_S = 0.01
"""Time in which bytes would come that are held."""


def test_versions_that_were_tried_are_those_that_can_be_installed() -> None:
    """The warning names the range that pip allows."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"nats-py{TRIED}" in project["dependencies"]


class NatsPy:
    """A nats-py whose read loop gives each answer to `loop_parser`."""

    def __init__(self) -> None:
        self.flushes = 0

    @property
    def loop_parser(self) -> Any:
        raise NotImplementedError

    async def flush(self) -> None:
        self.flushes += 1
        await self.loop_parser.parse(b"PONG\r\n")

    async def _process_pong(self) -> None:
        pass


class Known(NatsPy):
    """As the versions that were tried."""

    def __init__(self) -> None:
        super().__init__()
        self._ps: Any = Parser(self)
        self.own = self._ps

    @property
    def loop_parser(self) -> Any:
        return self._ps


class Renamed(NatsPy):
    """Has its parser under another name."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = Parser(self)

    @property
    def loop_parser(self) -> Any:
        return self._parser


class Cached(Known):
    """Reads the attribute once, before it is replaced."""

    @property
    def loop_parser(self) -> Any:
        return self.own


class Rebuilt(Known):
    """Has a parser of another kind under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = object()

    @property
    def loop_parser(self) -> Any:
        return self.own


def take_none(_data: bytes, at: int) -> int:
    return at


async def test_parser_of_known_nats_py_is_replaced() -> None:
    """And the half frame that it had read so far is completed."""
    client = Known()
    client.own.buf.extend(b"PO")

    async def flush() -> None:
        await client.loop_parser.parse(b"NG\r\n")

    client.flush = flush  # type: ignore[method-assign]
    assert await attach(cast("Client", client), take_none)
    assert client._ps is not client.own
    assert not client.own.buf


async def test_frames_are_taken_again_after_a_parse_that_was_cut_off() -> None:
    """A connection may be lost while nats-py handles a frame; `reset` is called before the next one is read."""
    client = Known()
    taken = list[bytes]()

    def take_all(data: bytes, at: int) -> int:
        taken.append(data[at:])
        return len(data)

    async def stall() -> None:
        await asyncio.Event().wait()

    client._process_pong = stall  # type: ignore[method-assign]
    parser = ConnectionParser(Parser(client), take_none)
    parsing = asyncio.create_task(parser.parse(b"PONG\r\n"))
    await asyncio.sleep(0)
    assert parser.take(b"x") == b"x"
    parsing.cancel()
    await asyncio.wait([parsing])

    parser.reset()
    parser._read_frames = take_all

    assert parser.take(b"x") == b""
    assert taken == [b"x"]


@pytest.mark.parametrize("kind", [Renamed, Cached, Rebuilt])
async def test_parser_of_unknown_nats_py_is_left_in_place_with_a_warning(kind: type[NatsPy]) -> None:
    """A parser that nobody calls would be a relay that is connected, ready and silent."""
    client = kind()
    before = dict(vars(client))
    with capture_logs() as logs:
        assert not await attach(cast("Client", client), take_none)

    assert [(entry["event"], entry["tried"]) for entry in logs] == [("nats_fast_path_off", TRIED)]
    assert vars(client) == {**before, "flushes": 1}


def test_half_a_frame_is_kept_for_the_rest_of_it() -> None:
    """It does not go to nats-py, whose task would then read all that follows, a turn of the event loop later."""
    taken = list[bytes]()

    def take_pings(data: bytes, at: int) -> int:
        while data.startswith(b"PING\r\n", at):
            taken.append(data[at : at + 6])
            at += 6
        return at

    parser = ConnectionParser(Parser(Known()), take_pings)
    assert parser.take(b"PING\r\nPI") == b""
    assert parser.take(b"NG\r\nPING\r\n") == b""
    assert taken == [b"PING\r\n"] * 3
    assert parser.take(b"PI") == b""
    assert parser.take(b"NG\r\nPONG\r\n") == b"PONG\r\n", "a frame that is not ours is for nats-py"


async def test_held_connection_is_read_when_asked_and_loses_nothing() -> None:
    """In order, whoever reads; the end of the connection is noticed at the next read."""
    taken = asyncio.Queue[bytes]()
    accepted = asyncio.Queue[asyncio.StreamWriter]()

    def take_all(data: bytes, _at: int) -> int:
        taken.put_nowait(data)
        return len(data)

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)
        await asyncio.Event().wait()

    async with serving(accept) as port, connected("127.0.0.1", port) as (reader, writer):
        server = await accepted.get()
        streams = SimpleNamespace(_io_reader=reader, _io_writer=writer)
        client = cast("Client", SimpleNamespace(_ps=ConnectionParser(Parser(Known()), take_all), _transport=streams))
        assert read_at_once(client)
        held = holdable(client)
        assert held is not None
        server.write(b"1")
        assert await taken.get() == b"1"

        held.hold()
        assert not held.read()
        server.write(b"2")
        await server.drain()
        await until(lambda: held.read() or not taken.empty())
        assert await taken.get() == b"2"
        server.write(b"3")
        await server.drain()
        await asyncio.sleep(_HELD_S)
        assert taken.empty()
        held.release()
        assert await taken.get() == b"3"

        held.hold()
        server.transport.abort()
        await until(lambda: held.read() or not held.is_on)
        assert await reader.read() == b""


async def test_connection_over_tls_or_of_unknown_parts_is_not_held() -> None:
    """It is read as it comes: bytes of its socket are not what the server said."""
    transport = SimpleNamespace(
        is_reading=bool, pause_reading=bool, resume_reading=bool, is_closing=bool, get_extra_info=lambda _name: "there"
    )
    streams = SimpleNamespace(_io_reader=asyncio.StreamReader(), _io_writer=SimpleNamespace(transport=transport))
    assert holdable(cast("Client", SimpleNamespace(_transport=streams))) is None
    assert holdable(cast("Client", SimpleNamespace(_transport=SimpleNamespace(_io_reader=streams._io_reader)))) is None
    assert holdable(cast("Client", Renamed())) is None


def test_missing_transport_is_a_warning() -> None:
    """Publishes go through the public API then."""
    with capture_logs() as logs:
        assert not has_writer(cast("Client", Renamed()))
    assert [(entry["event"], entry["missing"]) for entry in logs] == [("nats_fast_path_off", "Client._transport")]


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_abort_of_a_transport_that_is_closed_does_nothing(error: type[Exception]) -> None:
    """TLS of CPython 3.11.2 and uvloop raise where asyncio warns; the connection is gone either way."""

    def abort() -> None:
        raise error

    writer = SimpleNamespace(transport=SimpleNamespace(abort=abort))
    nats_internals.abort(cast("Client", SimpleNamespace(_transport=SimpleNamespace(_io_writer=writer))))


def test_abort_without_a_transport_does_nothing() -> None:
    """Closing the connection takes longer then, with its own deadline."""
    nats_internals.abort(cast("Client", Renamed()))


class DeafClient(Client):
    """nats-py as it would be if its read loop no longer used ``_ps``: what is assigned is ignored."""

    @property
    def _ps(self) -> Parser:
        return self._own_parser

    @_ps.setter
    def _ps(self, parser: Parser) -> None:
        self._own_parser: Parser
        if not hasattr(self, "_own_parser"):
            self._own_parser = parser


@pytest.fixture(params=["fast", "public"])
def is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run with the installed nats-py, and with one that lacks all private parts."""
    if request.param == "public":
        monkeypatch.setattr("roundlog.client.connection.Client", DeafClient)
        monkeypatch.setattr("roundlog.client.nats_internals.writer_of", lambda _client: None)
    return bool(request.param == "fast")


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects of messages that came through a subscription of nats-py."""
    subjects: list[str] = []
    on_message = RoundFrames.on_message

    async def note(self: RoundFrames, message: Msg) -> None:
        subjects.append(message.subject)
        await on_message(self, message)

    monkeypatch.setattr(RoundFrames, "on_message", note)
    return subjects


@pytest.mark.service
async def test_rounds_are_published_followed_and_read(nats: NatsServer, messages: list[str], *, is_fast: bool) -> None:
    """All of them, in order, with either nats-py; with the installed one, none goes through its subscriptions."""
    settings, source = LogSettings(url=nats.url), Source(_COUNT)
    live: list[LogEntry] = []
    tasks: set[bool] = set()
    complete = asyncio.Event()

    def on_live(entries: list[LogEntry]) -> None:
        tasks.add(asyncio.current_task() is not None)
        live.extend(entries)
        if len(live) == _COUNT:
            complete.set()

    async with connect(settings, name="follower") as connection, LogReader(settings) as reader:
        await open_log(connection, settings)
        subscription = await LiveSubscription.open(connection, on_live)
        await subscription.subscribe()
        await open_log(connection, settings)
        publisher = Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=DeadLetters())
        await publisher.run(source.read())
        async with asyncio.timeout(20):
            await complete.wait()
        page = await reader.page(1, limit=1000)
        last = await reader.last()
        nothing = await reader.page(_COUNT + 1, limit=1)

    assert publisher.stats.acked == _COUNT
    assert page.entries == live
    assert [entry.sequence for entry in live] == list(range(1, _COUNT + 1))
    assert [entry.data for entry in live] == [round_.to_json() for round_ in source.rounds]
    assert (last, page.remaining, nothing.entries) == (_COUNT, 0, [])
    assert (messages == []) is is_fast
    assert tasks == {not is_fast}, "as soon as they come, which is before any task runs"


@pytest.mark.service
async def test_rounds_are_read_at_once_after_a_reconnect_too(nats: NatsServer) -> None:
    """A new connection has a new reader, which nats-py makes."""
    settings = LogSettings(url=nats.url)
    tasks, came = list[bool](), asyncio.Event()
    subscriptions: list[LiveSubscription] = []

    def on_live(_entries: list[LogEntry]) -> None:
        tasks.append(asyncio.current_task() is not None)
        came.set()

    async def on_reconnected() -> None:
        subscriptions[0].connected()

    async with connect(settings, name="follower", on_reconnected=on_reconnected) as connection:
        await open_log(connection, settings)
        subscriptions.append(await LiveSubscription.open(connection, on_live))
        await subscriptions[0].subscribe()
        abort(connection.client)
        await until(lambda: not connection.is_connected)
        await until(lambda: connection.is_connected)
        await open_log(connection, settings)
        source = Source(1)
        publisher = Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=DeadLetters())
        await publisher.run(source.read())
        async with asyncio.timeout(20):
            await came.wait()

    assert tasks == [False]


@pytest.mark.service
async def test_publish_has_the_same_headers_either_way(nats: NatsServer, *, is_fast: bool) -> None:
    """Id, condition and offset; and an error ack names the number of its publish."""
    settings, answers = LogSettings(url=nats.url), asyncio.Queue[Acks | ErrorAck]()
    with capture_logs() as logs:
        async with connect(settings, name="publisher") as connection:
            info = await open_log(connection, settings)
            publishing = await open_publish_connection(
                connection, info, on_acks=answers.put_nowait, on_error_ack=answers.put_nowait
            )
            first = Publish(b"rounds.crash", 7, b"crash:1", None, offset_header(b"pg:1:A"), b"{}")
            for publish in (first, Publish(b"rounds.dice", 8, b"dice:2", b"crash:9", b"", b"{}")):
                await publishing.send([publish])
            async with asyncio.timeout(20):
                received = [await answers.get() for _ in range(2)]

    async with connect(settings, name="reader") as connection:
        [page] = [page async for page in stored_pages(connection, settings.stream, first=1, last=1)]
    assert received[0] == Acks([7], 0, 1)
    assert isinstance(received[1], ErrorAck)
    assert (received[1].number, received[1].code) == (8, 10070)
    assert (page.ids, page.offsets) == ([b"crash:1"], ["pg:1:A"])
    missing = [entry["missing"] for entry in logs if entry["event"] == "nats_fast_path_off"]
    assert missing == ([] if is_fast else ["a read loop that uses Client._ps", "Client._transport"])


async def test_aborted_connection_sends_nothing_later() -> None:
    """Without it the kernel would send what it holds for minutes, also after the process is killed."""
    accepted = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait((reader, writer))
        await asyncio.Event().wait()

    async with serving(accept) as port, connected("127.0.0.1", port) as (_, writer):
        reader, answer = await accepted.get()
        answer.transport.pause_reading()  # type: ignore[attr-defined]  # as a network that is away
        client = cast("Client", SimpleNamespace(_transport=SimpleNamespace(_io_writer=writer)))

        drop_unsent(client, 40.0)
        sock = writer.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000
        writer.write(b"x" * 10_000)
        abort(client)
        answer.transport.resume_reading()  # type: ignore[attr-defined]

        with pytest.raises(ConnectionResetError):
            await reader.read()
