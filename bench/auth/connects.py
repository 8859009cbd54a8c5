"""``python -m bench.auth.connects``: new links per CPU-second of the relay, beside a bare loop that answers constants.

Each link has a connection of its own, which is closed after the answer: what a link costs from its accept to its end.
With a token for all, with a token for each, and with a cursor that is `_BEHIND` rounds old and found in memory. The
ceiling accepts connections in the event loop of the relay, and writes a constant answer to the first bytes of each.
"""

import asyncio
import multiprocessing
import os
import secrets
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import uvloop

from auth.key import Key
from auth.tokens import TokenSigner
from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, table
from bench.auth.requests import Requests
from bench.fanout.fleet import Fleet
from bench.fanout.wire import WIRES, WebSocket, Wire
from bench.replay.client import greeting
from bench.replay.filled_log import FilledLog

_SERVER_CORE: Final = 0
_CLIENT_CORE: Final = 1
_SLICES: Final = int(os.environ.get("BENCH_SLICES", "8"))
_LINKS: Final = 1600
"""Of a case in a slice."""
_BEHIND: Final = 100
_KEY: Final = "bench"
_BACKLOG: Final = 4096
_ANSWER: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Links:
    """A kind of link."""

    wire: Wire
    fresh_tokens: bool = False
    resumes: bool = False

    @property
    def status(self) -> int:
        return 101 if isinstance(self.wire, WebSocket) else 200


_CASES: Final = {
    **{f"{wire.name}, a token for all": Links(wire) for wire in WIRES},
    **{f"{wire.name}, a token for each": Links(wire, fresh_tokens=True) for wire in WIRES},
    **{f"{wire.name}, {_BEHIND} rounds behind": Links(wire, resumes=True) for wire in WIRES},
}


def main() -> int:
    secret = f"bench:{secrets.token_hex(32)}"
    signer = TokenSigner.parse(secret)
    settings = {"RELAY_LOG_LEVEL": os.environ.get("BENCH_LOG_LEVEL", "info"), "RELAY_AUTH_TOKEN_SECRETS": secret}
    with on_core(_CLIENT_CORE), NatsServer() as server:
        with on_core(_SERVER_CORE):
            process = relay(server.url, **settings)
            at = process.__enter__()
            bare = _bare()
            floor_pid, floor_port = bare.__enter__()
        try:
            heading("New links per CPU-second of the server's process", "python -m bench.auth.connects")
            cursor, others = _fill_memory(server, at, signer)
            per_s: dict[str, list[float]] = {name: [] for name in ("bare loop", *_CASES)}
            for _ in range(_SLICES + 1):  # the first one warms up
                requests = [WebSocket().request(_token(signer))] * _LINKS
                per_s["bare loop"].append(_measure(floor_pid, floor_port, requests, 101))
                for name, links in _CASES.items():
                    tokens = [_token(signer) for _ in range(_LINKS if links.fresh_tokens else 1)]
                    requests = [_request(links, token, cursor) for token in tokens] * (_LINKS // len(tokens))
                    per_s[name].append(_measure(at.pid, at.port, requests, links.status))
            for other in others:
                other.close()
        finally:
            bare.__exit__(None, None, None)
            process.__exit__(None, None, None)
    rates = {name: statistics.median(values[1:]) for name, values in per_s.items()}
    rows = [
        [name, f"{rate:,.0f}", f"{1e6 / rate:,.0f} us", f"{rate / rates['bare loop']:.2f}"]
        for name, rate in rates.items()
    ]
    table(["", "links per CPU-second", "CPU of one", "of the bare loop"], rows)
    return 0


def _token(signer: TokenSigner) -> str:
    return signer.issue(Key(_KEY, "private"))[0]


def _request(links: Links, token: str, cursor: str) -> bytes:
    return greeting(links.wire, token, cursor) if links.resumes else links.wire.request(token)


def _fill_memory(server: NatsServer, at: RelayProcess, signer: TokenSigner) -> tuple[str, list[Fleet]]:
    """Publish rounds that the relay holds in memory; return the cursor before the last `_BEHIND` of them, and links.

    The links stay open, as there are always some on a relay that is in use.
    """
    log, others = FilledLog(server), [Fleet(wire) for wire in WIRES]
    for other in others:
        other.connect(at.port, 1, partial(other.wire.request, _token(signer)))
    log.publish(_BEHIND + 1)
    for other in others:
        other.receive(_BEHIND + 1)
    return log.cursor(1), others


def _measure(pid: int, port: int, requests: Sequence[bytes], status: int) -> float:
    client, before_s = Requests(port), cpu_s(pid)
    client.send_each(requests, status=status)
    return len(requests) / max(0.01, cpu_s(pid) - before_s)


@contextmanager
def _bare() -> Iterator[tuple[int, int]]:
    """Run the bare loop in a process of its own; yield its process id and port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield process.pid, port
    finally:
        process.kill()
        process.join()


class _Constant(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)  # type: ignore[attr-defined]


def _main(pipe: Connection) -> None:
    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(_Constant, "127.0.0.1", 0, backlog=_BACKLOG)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
