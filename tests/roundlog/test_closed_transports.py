"""Connections to NATS that are closed at any moment, under uvloop: a lost connection, and nothing else."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import uvloop
from nats.aio.client import Client

from roundlog.client.checked_client import CheckedClient, CheckedTransport
from roundlog.client.connection import Connection, connect
from roundlog.client.faults import translated
from roundlog.client.library_errors import means_lost
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.publish.answers import Acks, ErrorAck
from roundlog.publish.hpub import Publish
from roundlog.publish.publish_connection import open_publish_connection
from roundlog.reader import LogReader
from roundlog.stream import open_log
from tests.nats import NatsServer
from tests.waiting import until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests on a closed connection get no answer: do not wait 5 s for it, and reconnect soon."""
    monkeypatch.setattr("roundlog.client.connection._RECONNECT_S", 0.02)
    monkeypatch.setattr("roundlog.client.connection._ANSWER_S", 0.2)


_PUBLISH: Final = Publish(b"rounds.crash", 1, b"crash:1", None, b"", b"{}")


async def on_uvloop(work: Callable[[], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run `work` on an event loop of uvloop, as the command line does; return what the loop reported as unhandled."""

    def run() -> list[dict[str, Any]]:
        unhandled: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
            await work()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return unhandled

    return await asyncio.to_thread(run)


def transport_of(connection: Connection) -> CheckedTransport:
    transport = connection.client._transport
    assert isinstance(transport, CheckedTransport)
    return transport


def close_socket(connection: Connection) -> None:
    """Close the transport below nats-py, which has not noticed it yet."""
    inner: Any = transport_of(connection).inner
    inner._io_writer.transport.abort()


async def publish(connection: Connection) -> None:
    await connection.publish("rounds.crash", b"{}")


async def request(connection: Connection) -> None:
    await connection.request("$JS.API.INFO", b"")


async def subscribe(connection: Connection) -> None:
    async def ignore(_message: object) -> None: ...

    await connection.unsubscribe(await connection.subscribe("a.subject", ignore))


async def flush(connection: Connection) -> None:
    with translated("lost"):
        await connection.client.flush(0.1)  # type: ignore[arg-type]  # only given to wait_for()


async def drain(connection: Connection) -> None:
    with translated("lost"):
        await connection.client.drain()


async def nothing(_connection: Connection) -> None: ...


_CALLS: Final = (publish, request, subscribe, flush, drain, nothing)


@pytest.mark.service
@pytest.mark.parametrize("noticed_after", [0, 2], ids=lambda turns: f"{turns}-turns")
@pytest.mark.parametrize("call", _CALLS, ids=lambda call: call.__name__)
async def test_call_on_a_closed_transport_is_a_lost_connection(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
    call: Callable[[Connection], Awaitable[None]],
    noticed_after: int,
) -> None:
    """Whether nats-py has noticed it or not, a call raises `LogUnavailable` at most, and closing raises nothing."""

    async def work() -> None:
        for reconnect in (False, True):
            async with connect(LogSettings(url=nats.url), name="test", reconnect=reconnect) as connection:
                close_socket(connection)
                for _ in range(noticed_after):
                    await asyncio.sleep(0)
                with suppress(LogUnavailable):
                    async with asyncio.timeout(8):
                        await call(connection)

    assert await on_uvloop(work) == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


_METHODS: Final = ("write", "writelines", "read", "drain", "at_eof", "readline", "wait_closed", "close")
_OTHER_ERRORS: Final = (
    AttributeError,
    AssertionError,
    asyncio.InvalidStateError,
    BrokenPipeError,
    ssl.SSLError,
    EOFError,
)


@pytest.mark.service
@pytest.mark.parametrize(
    ("method", "error"),
    [*((method, RuntimeError) for method in _METHODS), *(("drain", error) for error in _OTHER_ERRORS)],
)
async def test_connection_is_made_again_whatever_the_transport_raises(
    nats: NatsServer, caplog: pytest.LogCaptureFixture, method: str, error: type[Exception]
) -> None:
    """nats-py neither stops reading, writing and reconnecting for good, nor logs a traceback."""

    async def work() -> None:
        async with connect(LogSettings(url=nats.url), name="test") as connection:
            inner: Any = transport_of(connection).inner
            real, raised = getattr(inner, method), 0

            def fail(*arguments: Any) -> Any:
                nonlocal raised
                if raised == 2:
                    return real(*arguments)
                raised += 1
                raise error("the handler is closed")

            setattr(inner, method, fail)
            with suppress(LogUnavailable):
                await connection.publish("a.subject", b"")
            close_socket(connection)

            async def works() -> bool:
                with suppress(LogUnavailable):
                    await request(connection)
                    return True
                return False

            await until(works)

    assert await on_uvloop(work) == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.service
async def test_publisher_and_reader_on_a_closed_transport_raise_that_the_log_is_unavailable(nats: NatsServer) -> None:
    """The fast paths write past nats-py's buffers, and report the loss in the same way."""

    def ignore(_: Acks | ErrorAck) -> None: ...

    async def work() -> None:
        settings = LogSettings(url=nats.url)
        async with connect(settings, name="test", reconnect=False) as connection:
            info = await open_log(connection, settings)
            publishing = await open_publish_connection(connection, info, on_acks=ignore, on_error_ack=ignore)
            close_socket(connection)
            with pytest.raises(LogUnavailable):
                await publishing.send([_PUBLISH])
        async with LogReader(settings) as reader:
            await reader.last()
            assert reader._connection is not None
            close_socket(reader._connection)
            with pytest.raises(LogUnavailable):
                await reader.last()

    assert await on_uvloop(work) == []


@pytest.mark.service
async def test_answer_to_a_flush_that_was_given_up_leaves_the_connection_readable(nats: NatsServer) -> None:
    """nats-py would complete the flush again, fail, and stop reading for good."""

    async def work() -> None:
        async with connect(LogSettings(url=nats.url), name="test") as connection:
            flushing = asyncio.create_task(connection.client.flush())
            await asyncio.sleep(0)
            flushing.cancel()
            await request(connection)
            await request(connection)

    assert await on_uvloop(work) == []


def test_methods_that_are_overridden_exist() -> None:
    """With a nats-py that has renamed one of them, the override would never be called."""
    for name in vars(CheckedClient):
        if name.startswith("_") and not name.startswith("__"):
            assert callable(getattr(Client, name)), name


def test_only_what_a_library_raises_counts_as_a_loss() -> None:
    """A defect of our own keeps its traceback, and so does a wrong argument."""

    def caught(work: Callable[[], object]) -> BaseException:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            work()
        return raised.value

    ours = compile("None.write(b'')", "ours.py", "eval")
    theirs = compile("None.write(b'')", "theirs.py", "eval")
    assert not means_lost(caught(lambda: eval(ours, {"__name__": "roundlog.publish"})))  # noqa: S307
    assert means_lost(caught(lambda: eval(theirs, {"__name__": "nats.aio.transport"})))  # noqa: S307
    assert not means_lost(caught(lambda: asyncio.Queue(maxsize="1").full()))  # type: ignore[arg-type]
    assert not means_lost(RuntimeError("never raised"))


async def test_cancellation_that_nobody_asked_for_is_a_loss() -> None:
    """A library may cancel what we await. A task that is cancelled itself ends."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    with pytest.raises(LogUnavailable), translated("lost"):
        await cancelled

    async def wait() -> None:
        with translated("lost"):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
