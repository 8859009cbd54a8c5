"""``python -m bench.auth.limits``: what limits cost, and what refusing costs beside admitting, in CPU of the relay.

The yardstick of each refusal is the same request with a good key within its limits, in the same run and in the same
way: one after the other on one connection, or each on a connection of its own. Limits do nothing per round, so their
part of fan-out is what they cost when links are opened.
"""

import hashlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Final

from auth.grants import Grant
from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, table
from relay.admission.limits.limits import ClientLimits
from relay.config.sections import LimitSettings

_CPU_S: Final = 0.6
"""CPU time for one figure: the system counts it in steps of 10 ms."""
_CALLS: Final = 50_000
_HANDSHAKE: Final = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: YSBiZW5jaCwgbm8gbmFtZQ==",
)
_CASES: Final = (
    ("GET /api/games", "GET", "/api/games", (), True),
    ("POST /api/auth/token", "POST", "/api/auth/token", (), True),
    ("POST /api/auth/token, a connection each", "POST", "/api/auth/token", (), False),
    ("WebSocket handshake", "GET", "/ws/crash", _HANDSHAKE, False),
)
_LEAST: Final = {
    "RELAY_LIMITS_PRIVATE_REQUESTS_PER_MIN": "1",
    "RELAY_LIMITS_PRIVATE_LINKS_PER_S": "0.001",
    "RELAY_LIMITS_WRONG_CREDENTIALS_PER_MIN": "1",
}


class Client:
    """Sends a request again and again, and reads each answer; keeps its connection, or has a new one each time."""

    def __init__(self, port: int, case: tuple[str, str, str, tuple[str, ...], bool], key: str, *, keeps: bool) -> None:
        _, method, path, lines, _ = case
        head = (f"{method} {path} HTTP/1.1", "Host: relay", f"X-API-Key: {key}", *lines)
        self._request = "".join(f"{line}\r\n" for line in (*head, "")).encode()
        self._port = port
        self._keeps = keeps
        self._socket: socket.socket | None = None

    def once(self) -> int:
        """Send the request; return the status of its answer."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        if not self._keeps:
            self._socket.close()
            self._socket = None
        return int(answer[9:12])


def cost_us(target: RelayProcess, client: Client, status: int) -> float:
    """Return the CPU time of the relay for one request whose answer has a status, in microseconds."""
    while client.once() != status:
        pass
    began, count = cpu_s(target.pid), 0
    while cpu_s(target.pid) - began < _CPU_S:
        for _ in range(100):
            found = client.once()
            assert found == status, f"{found} instead of {status}"
        count += 100
    return (cpu_s(target.pid) - began) / count * 1e6


def requests() -> None:
    """Print what requests cost: admitted, over a limit, with a wrong key."""
    limited, wrong = (f"sk_live_{secrets.token_hex(32)}" for _ in range(2))
    entry = f"limited=sha256:{hashlib.sha256(limited.encode()).hexdigest()}"
    rows = []
    with NatsServer() as nats, on_core(0), relay(nats.url) as free, relay(nats.url, more_keys=entry, **_LEAST) as least:
        for case in _CASES:
            name, *_, keeps = case
            good = 101 if case[3] else 200
            admitted = cost_us(free, Client(free.port, case, free.key, keeps=keeps), good)
            over = cost_us(least, Client(least.port, case, limited, keeps=keeps), 429)
            row = [name, f"{admitted:.0f} us", f"{over:.0f} us", f"**{over / admitted:.2f}**", "", ""]
            if not keeps:  # the connection of such a key is closed
                unknown = cost_us(least, Client(least.port, case, wrong, keeps=False), 429)
                row[4:] = [f"{unknown:.0f} us", f"**{unknown / admitted:.2f}**"]
            rows.append(row)
    table(("request", "admitted", "over a limit", "ratio", "one wrong key too many", "ratio"), rows)


def calls() -> None:
    """Print what the limits themselves take, with as many addresses known as there are calls."""
    limits = ClientLimits(
        LimitSettings(
            private_requests_per_min=10_000_000,
            public_key_requests_per_min=10_000_000,
            private_links_per_s=1_000_000,
            address_links_per_s=1_000_000,
        )
    )
    private, public = (Grant("k", kind, None, frozenset()) for kind in ("private", "public"))
    addresses = iter([f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(_CALLS)])
    cases: tuple[tuple[str, Callable[[], object]], ...] = (
        ("a request of a private key", lambda: limits.request(private, "127.0.0.1")),
        ("a request of a public key, each from another address", lambda: limits.request(public, next(addresses))),
        ("a link, opened and closed", lambda: limits.open(private, "127.0.0.1").close()),
    )
    table(("the limits themselves", "CPU"), [[name, f"{_each_us(call):.1f} us"] for name, call in cases])


def _each_us(call: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(_CALLS):
        call()
    return (time.process_time() - began) / _CALLS * 1e6


def main() -> None:
    """Print both tables."""
    heading("Limits", "python -m bench.auth.limits")
    calls()
    requests()


if __name__ == "__main__":
    main()
