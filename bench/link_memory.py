"""``python -m bench.link_memory [KIND ...]``: the memory that a relay needs for a link, of each kind.

The table in `relay/admission/capacity.py` is from here. Each kind has a relay of its own, whose first links are not
counted, since they load what all links share. Growth is that of the process; the kernel's memory for a connection is
added to it.
"""

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from grpc import aio, ssl_channel_credentials

from bench._nats import NatsServer
from bench._process import allow_files, rss_bytes
from bench._relay import RelayProcess, relay
from bench._report import heading, table
from bench._rounds import endless
from bench.fanout.publisher import Publisher
from rounds import datastream_pb2 as pb

_KINDS: Final = ("websocket", "sse", "proxy", "grpc", "grpc_tls", "grpc_shared")
_FIRST: Final = 200
_LINKS: Final = 1000
_AT_ONCE: Final = 10
_BURST: Final = 20
_BURSTS: Final = 5
_STREAMS_PER_CONNECTION: Final = 900
_HEARTBEAT_S: Final = 55
_HEARTBEATS_BYTES: Final = 5000
"""More than all heartbeats of a quiet moment."""
_QUIET_S: Final = 0.3
_BROWSER: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
    "\r\nAccept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Origin: https://www.example.com\r\nReferer: https://www.example.com/live\r\nSec-Fetch-Mode: cors\r\n"
)
"""Headers of a browser, which a relay may keep in memory."""
_SLABS: Final = ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq")
"""What Linux allocates for a connection that is accepted and watched, one of each."""


class Clients:
    """Clients of one kind of link. They read what comes and do not parse it."""

    def __init__(self, at: RelayProcess, grpc_port: int, certificate: bytes | None) -> None:
        """`certificate` is the gRPC port's, when it speaks TLS."""
        self.received = 0
        self._at = at
        self._token = at.token()
        self._target = f"localhost:{grpc_port}"
        self._certificate = certificate
        self._calls = 0
        self._channels: list[aio.Channel] = []
        self._reading: list[asyncio.Task[None]] = []

    async def open(self, kind: str, count: int) -> None:
        """Open `count` more links."""
        for _ in range(0, count, _AT_ONCE):
            await asyncio.gather(*(self._open(kind) for _ in range(_AT_ONCE)))
        await self.settled()

    async def settled(self) -> None:
        """Wait until only heartbeats come."""
        before = -_HEARTBEATS_BYTES
        while self.received - before >= _HEARTBEATS_BYTES:
            before = self.received
            await asyncio.sleep(_QUIET_S)

    async def close(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def _open(self, kind: str) -> None:
        if kind == "websocket":
            await self._ask(
                "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: YSBiZW5jaCwgbm8gbmFtZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
                f"Sec-WebSocket-Protocol: {self._token}\r\n"
            )
        elif kind == "sse":
            await self._ask(f"GET /sse HTTP/1.1\r\nX-API-Key: {self._at.key}\r\n")
        elif kind == "proxy":
            path = "/api/grpc/datastream.DataStream/StreamAll"
            head = f"POST {path} HTTP/1.1\r\nX-API-Key: {self._at.key}\r\nContent-Length: 5\r\n"
            await self._ask(head + "Content-Type: application/connect+proto\r\n", body=bytes(5))
        else:
            await self._call(shared=kind == "grpc_shared")

    async def _ask(self, head: str, body: bytes = b"") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._at.port)
        writer.write(f"{head}Host: bench\r\n{_BROWSER}\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.split()[1] not in (b"101", b"200"):
            raise SystemExit(f"refused: {answer!r}")

        async def read() -> None:
            while data := await reader.read(1 << 16):
                self.received += len(data)
            writer.close()

        self._reading.append(asyncio.create_task(read()))

    async def _call(self, *, shared: bool) -> None:
        if not shared or self._calls % _STREAMS_PER_CONNECTION == 0:
            self._channels.append(self._channel())
        self._calls += 1
        method: Any = self._channels[-1].unary_stream("/datastream.DataStream/StreamAll")
        call = method(pb.StreamAllRequest().SerializeToString(), metadata=(("x-api-key", self._at.key),))
        await call.initial_metadata()

        async def read() -> None:
            async for message in call:
                self.received += len(message)

        self._reading.append(asyncio.create_task(read()))

    def _channel(self) -> aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]  # otherwise all channels share one connection
        if self._certificate is None:
            return aio.insecure_channel(self._target, options)
        return aio.secure_channel(self._target, ssl_channel_credentials(self._certificate), options)


async def measure(kind: str, nats: NatsServer) -> list[str]:
    """Open links of a kind, send them rounds, and return the row of the table."""
    with _settings(kind) as (settings, certificate), relay(nats.url, **settings) as at:
        clients, rounds = Clients(at, int(settings["RELAY_GRPC_PORT"]), certificate), endless()

        async def publish() -> None:
            for _ in range(_BURSTS):
                publisher.publish(list(islice(rounds, _BURST)))
                await clients.settled()

        with Publisher(nats.port) as publisher:
            await clients.open(kind, _FIRST)
            await publish()
            before = rss_bytes(at.pid)
            await clients.open(kind, _LINKS)
            idle = rss_bytes(at.pid)
            await publish()
            used = rss_bytes(at.pid)
        await clients.close()
    return [kind, *(f"{(after - before) / _LINKS / 1024:.1f} KB" for after in (idle, used))]


async def _measure_all(kinds: Iterable[str], nats: NatsServer) -> list[list[str]]:
    """Measure in one event loop: grpcio reports each further one as an error."""
    return [await measure(kind, nats) for kind in kinds]


@contextmanager
def _settings(kind: str) -> Iterator[tuple[dict[str, str], bytes | None]]:
    """Return a relay's settings and its certificate, whose files exist for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"RELAY_GRPC_PORT": str(port), "RELAY_LINKS_HEARTBEAT_S": str(_HEARTBEAT_S)}
    if kind != "grpc_tls":
        yield settings, None
        return
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        settings |= {"RELAY_GRPC_TLS_CERT_FILE": str(certificate), "RELAY_GRPC_TLS_KEY_FILE": str(key)}
        yield settings, certificate.read_bytes()


def socket_bytes() -> int:
    """What the kernel allocates for one accepted connection, buffers aside; 0 if not readable (root only)."""
    try:
        lines = Path("/proc/slabinfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[3]) for line in lines if line.split()[0] in _SLABS)


def main(wanted: list[str]) -> None:
    unknown = [kind for kind in wanted if kind not in _KINDS]
    if unknown:
        raise SystemExit(f"unknown kind {unknown[0]!r}; there are: {', '.join(_KINDS)}")
    heading(f"Memory by link: growth of the process by {_LINKS} links of a kind", "python -m bench.link_memory")
    with NatsServer() as nats:
        rows = asyncio.run(_measure_all(wanted or _KINDS, nats))
    table(["", "idle", f"after {_BURST * _BURSTS} rounds"], rows)
    print(f"The kernel keeps {socket_bytes() / 1024:.1f} KB for a connection, buffers aside.")


if __name__ == "__main__":
    allow_files(4 * (_FIRST + _LINKS))
    main(sys.argv[1:])
