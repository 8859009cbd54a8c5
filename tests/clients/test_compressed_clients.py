"""Foreign clients that decompress: each gets what was stored, byte for byte and at once, whenever it has joined."""

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from auth.key_secret import DEMO_KEY
from relay.http.early import stream_requests
from relay.http.sse.stream_coding import accepts_gzip
from tests.clients import event_stream_clients
from tests.clients.program import Program
from tests.clients.tools import go_program, java_classes, node_packages, tool
from tests.network.streams import connected
from tests.relay.conftest import metric_becomes, token_of
from tests.resume.conftest import StartRelay, log, start_relay
from tests.resume.log_writer import LogWriter, make_round
from tests.samples.browser import headless_browser, sample_page

__all__ = ["log", "start_relay"]

pytestmark = pytest.mark.service

_HERE: Final = Path(__file__).parent
GAMES: Final = "games=crash,dice"
LAST: Final = 1 << 40
"""The id of the last round."""
NODE_WINDOWS: Final = (9, 12, 15)
PYTHON_WINDOWS: Final = (*range(9, 16), None)
STREAMS: Final = ("eventsource", "eventsource4", "sseclient-py", "httpx-sse", "aiohttp-sse-client", "r3labs", "go-sse")
"""Libraries that ask for gzip by themselves, or whose HTTP client does."""


class Stored:
    """The rounds of a test, as clients get them."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self.texts: list[str] = []

    async def store(self, number: int | None = None) -> int:
        """Store one more round; return its id."""
        number = len(self.texts) + 1 if number is None else number
        game = ("crash", "dice", "crash")[number % 3]
        point = f"{number * 7919 % 997}.{number % 100:02}" * (200 if number % 40 == 0 else 1)
        round_ = make_round(game, number, at_ms=1_768_730_400_000 + 1000 * len(self.texts), point=point)
        [sequence] = await self._writer.store(round_)
        text = round_.to_json().decode()
        self.texts.append(f'{text[:-1]},"cursor":"{self._writer.epoch}-{sequence}"}}')
        return number

    async def until(self, *waiting: "asyncio.Task[object]") -> None:
        """Store rounds until all tasks are done, about fifty a second."""
        left: set[asyncio.Task[object]] = set(waiting)
        while left:
            await self.store()
            done, left = await asyncio.wait(left, timeout=0.02)
            for task in done:
                task.result()

    def check(self, who: str, seen: list[str], *, from_first: bool) -> None:
        """Check that a client has seen every round from its first one on."""
        assert seen == self.texts[-len(seen) :], who
        assert len(seen) == len(self.texts) or not from_first, who


class Client:
    """A program that prints what it gets."""

    def __init__(self, who: str, program: Program, *, from_first: bool) -> None:
        self.who, self.program, self.from_first = who, program, from_first

    async def wait_for(self, number: int | None = None) -> object:
        """Wait until it has printed a round, or that with an id."""
        wanted = "" if number is None else rf'.*\\"round_id\\":{number},'
        return await asyncio.to_thread(self.program.wait_for, f'"event": ?"message"{wanted}')

    def seen(self) -> list[str]:
        printed = [json.loads(line) for line in self.program.printed if line.startswith("{")]
        return [event["data"] for event in printed if event["event"] == "message"]


def programs(url: str, epoch: str) -> Iterator[tuple[str, Program, bool]]:
    """Start each client, live and from the first round on."""
    node_packages(_HERE / "node")
    go, java = go_program(_HERE / "go"), ["java", "-cp", java_classes(_HERE / "java"), "OkHttp"]
    for start in ("", f"&after={epoch}-0&hello=0"):
        ws, sse = f"{url.replace('http', 'ws')}/ws?{GAMES}{start}", f"{url}/sse?{GAMES}{start}"
        env = {"CLIENT_KEY": DEMO_KEY}
        for window in NODE_WINDOWS if not start else NODE_WINDOWS[:1]:
            options = {"headers": {"X-API-Key": DEMO_KEY}, "perMessageDeflate": {"serverMaxWindowBits": window}}
            command = [tool("node"), "ws.js", ws]
            yield (
                f"ws {window}",
                Program(command, cwd=_HERE / "node", env={"WS_OPTIONS": json.dumps(options)}),
                not start,
            )
        for library in ("gorilla", "coder"):
            yield library, Program([go, library, ws], env=env), not start
        yield "okhttp", Program([*java, ws], env=env), not start
        yield "okhttp-sse", Program([*java, f"{sse}&api_key={DEMO_KEY}"], env=env), not start
        for library in STREAMS:
            yield library, event_stream_clients.start(library, sse), not start


@asynccontextmanager
async def running(url: str, epoch: str) -> AsyncIterator[list[Client]]:
    """Run all programs while the block runs."""
    clients: list[Client] = []
    try:
        started = programs(url, epoch)
        while (next_ := await asyncio.to_thread(next, started, None)) is not None:
            who, program, is_live = next_
            clients.append(Client(who, program, from_first=not is_live))
        yield clients
    finally:
        await asyncio.gather(*(asyncio.to_thread(client.program.stop) for client in clients))


async def read_with_python(
    url: str, window: int | None = None, *, sock: socket.socket | None = None, begins: asyncio.Event | None = None
) -> list[str]:
    """Read with `websockets`, up to the last round; not before `begins` is set."""
    seen: list[str] = []
    async with websockets.connect(
        f"{url.replace('http', 'ws')}/ws?{GAMES}",
        extensions=[ClientPerMessageDeflateFactory(server_max_window_bits=window)],
        compression=None,
        additional_headers={"X-API-Key": DEMO_KEY},
        max_queue=None if begins is None else 1,
        max_size=None,
        sock=sock,
    ) as ws:
        assert ws.response is not None
        assert ("server_max_window_bits" in ws.response.headers["Sec-WebSocket-Extensions"]) == (window is not None)
        if begins is not None:
            await begins.wait()
        async for message in ws:
            assert isinstance(message, str)
            seen.append(message)
            if f'"round_id":{LAST},' in message:
                return seen
    raise AssertionError("the relay closed the connection")


async def test_programs_get_every_round(
    log: LogWriter, start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They join while rounds come, live or from the first one on. Each round arrives before the next one is stored."""
    compressed: list[bool] = []

    def noted(accept_encoding: str) -> bool:
        compressed.append(accepts_gzip(accept_encoding))
        return compressed[-1]

    monkeypatch.setattr(stream_requests, "accepts_gzip", noted)
    stored = Stored(log)
    for _ in range(90):
        await stored.store()
    async with (
        start_relay(replay={"ring_rounds": 20}) as url,
        running(url, log.epoch) as clients,
    ):
        reading = [asyncio.create_task(read_with_python(url, bits)) for bits in PYTHON_WINDOWS]
        await stored.until(*(asyncio.create_task(client.wait_for()) for client in clients))
        for number in (LAST - 3, LAST - 2, LAST - 1, LAST):
            await stored.store(number)
            await asyncio.gather(*(client.wait_for(number) for client in clients))
        found = await asyncio.gather(*reading)
    for client in clients:
        stored.check(client.who, client.seen(), from_first=client.from_first)
    for bits, seen in zip(PYTHON_WINDOWS, found, strict=True):
        stored.check(f"websockets {bits}", seen, from_first=False)
    assert compressed == [True] * 2 * (len(STREAMS) + 1)  # with okhttp-sse


async def test_clients_that_read_late_get_every_round(log: LogWriter, start_relay: StartRelay) -> None:
    """Their bytes wait in the kernel and in the relay, and are those of all others."""
    stored, begins = Stored(log), asyncio.Event()
    async with start_relay() as url:
        address = (url.partition("://")[2].partition(":")[0], int(url.rpartition(":")[2]))
        prompt = asyncio.create_task(read_with_python(url))
        with small_socket(address) as of_websocket, small_socket(address) as of_stream:
            late = asyncio.create_task(read_with_python(url, sock=of_websocket, begins=begins))
            head = f"GET /sse?{GAMES}&api_key={DEMO_KEY} HTTP/1.1", "Host: x", "Accept-Encoding: gzip", "", ""
            of_stream.sendall("\r\n".join(head).encode())
            async with aiohttp.ClientSession() as session:
                await metric_becomes(session, url, "relay_links", 3)
            for _ in range(300):
                await stored.store(40 * (len(stored.texts) + 1))
            await stored.store(LAST)
            assert (await prompt)[-1] == stored.texts[-1]
            begins.set()
            of_stream.setblocking(False)
            inflater, text = zlib.decompressobj(wbits=31), b""
            async with connected(sock=of_stream) as (reader, _):
                await reader.readuntil(b"\r\n\r\n")
                while f'"round_id":{LAST},'.encode() not in text:
                    size = int(await reader.readline(), 16)
                    text += inflater.decompress((await reader.readexactly(size + 2))[:-2])
            stored.check("websockets, late", await late, from_first=True)
    seen = [line.removeprefix("data: ") for line in text.decode().split("\n") if line.startswith("data: ")]
    stored.check("event stream, late", seen, from_first=True)


def small_socket(address: tuple[str, int]) -> socket.socket:
    """Connect a socket that takes little before it is read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(address)
    return made


IN_A_PAGE: Final = """
const read = (open) => new Promise((done) => {
  const seen = []
  open().onmessage = ({ data }) => {
    seen.push(data)
    if (data.includes('"round_id":%(last)d,')) done(seen)
  }
})
const fetched = async () => {
  const answer = await fetch('%(url)s/sse?%(query)s', { headers: { 'X-API-Key': '%(key)s' } })
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  while (!text.includes('"round_id":%(last)d,')) text += (await reader.read()).value
  reader.cancel()
  return text.split('\\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6))
}
return await Promise.all([
  read(() => new WebSocket('%(ws)s/ws?%(query)s', ['%(token)s'])),
  read(() => new EventSource('%(url)s/sse?api_key=%(key)s&%(query)s')),
  fetched(),
])
"""


async def test_browser_gets_every_round(log: LogWriter, start_relay: StartRelay, tmp_path: Path) -> None:
    """By WebSocket, `EventSource` and fetch, in a page of Chromium."""
    stored = Stored(log)
    with headless_browser(tmp_path / "chromium") as browser, sample_page() as page:
        async with start_relay() as url, aiohttp.ClientSession() as session:
            reading = [asyncio.create_task(read_with_python(url)) for _ in range(2)]
            await asyncio.to_thread(browser.open, page)
            facts = {"url": url, "ws": url.replace("http", "ws"), "query": GAMES, "key": DEMO_KEY, "last": LAST}
            script = IN_A_PAGE % (facts | {"token": await token_of(session, url)})
            found = asyncio.create_task(asyncio.to_thread(browser.ask, script))
            await stored.until(asyncio.create_task(metric_becomes(session, url, "relay_links", 5)))
            for _ in range(100):
                await stored.store()
            await stored.store(LAST)
            for who, seen in zip(("WebSocket", "EventSource", "fetch"), await found, strict=True):
                stored.check(who, seen, from_first=False)
                assert len(seen) > 100
            for task in reading:
                stored.check("websockets", await task, from_first=False)
