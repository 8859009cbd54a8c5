"""``python -m bench.hostile [--seconds N] [NAME ...]``: the delay of a good client's rounds while each attack runs.

Each attack gets a relay of its own, which is measured first without it. The relay has one core. The good client,
NATS and the attacker share the other, where the attacker has a lower priority. The exit status is 1 when a ratio is
over the target.
"""

import argparse
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from auth.key_secret import generate
from bench._nats import NatsServer
from bench._process import on_core
from bench._relay import relay
from bench._report import heading, percentile, table
from bench.fanout.publisher import Publisher
from bench.hostile.attacker import ATTACKS, KEY
from bench.hostile.good import GoodClient, Phase
from bench.hostile.sockets import Target
from rounds import Round

_RELAY_CORE: Final = 0
_OTHER_CORE: Final = 1
_NATS_THREADS: Final = 4
"""As on a machine of four cores. With one, what the attack reads of the log is not interrupted for a live round."""
_SWITCH_S: Final = 0.0005
"""Time until a thread of the good client lets another one run; by default 5 ms."""
_WARM_UP_S: Final = 2.0
"""Until everything is loaded, and the stored past is through."""
_CALM_S: Final = 4.0
_READ_S: Final = 0.1
_TARGET: Final = 2.0
_SMALLEST_P99_S: Final = 0.002
"""A ratio to less than this would be one of scheduling: both processes have a core each, and others run too."""
_HISTORY: Final = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"attacks: {', '.join(ATTACKS)}; default: all")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each attack runs")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ATTACKS):
        parser.error(f"unknown attack {min(unknown)!r}; there are: {', '.join(ATTACKS)}")
    _come_first()
    heading("A good client under attack", f"python -m bench.hostile --seconds {given.seconds:g}")
    rows, worst = [], 0.0
    for name in given.names or ATTACKS:
        try:
            calm, attacked, done = _attack(name, given.seconds)
        except (SystemExit, OSError) as error:  # a relay that does not start, or an attacker that ended
            print(f"{name}: not measured: {error!r:.200}", file=sys.stderr, flush=True)
            worst = float("inf")
            continue
        ratio = _p99(attacked) / max(_p99(calm), _SMALLEST_P99_S)
        worst = max(worst, ratio)
        rows.append(_row(name, calm, attacked, ratio, done))
        print(f"{name}: {' | '.join(rows[-1][1:])}", file=sys.stderr, flush=True)
    table(
        [
            "attack",
            "done",
            "p99 without",
            "p99",
            "log alone",
            "ratio",
            "worst",
            "worst new link",
            "refused",
            "ended",
            "missing",
        ],
        rows,
    )
    print(f"target: ratio of p99 ≤ {_TARGET:g}; the worst is {worst:.1f}")
    return 0 if worst <= _TARGET else 1


def _come_first() -> None:
    """Let the good client run as soon as it can: what it waits for the core that it shares must not be measured."""
    sys.setswitchinterval(_SWITCH_S)
    with suppress(PermissionError):  # then the figures are a little higher
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # not for the processes that it starts
        os.sched_setscheduler(0, policy, os.sched_param(1))


def _attack(name: str, seconds: float) -> tuple[Phase, Phase, int]:
    """Measure one relay without and with an attack; return both, and what the attacker did."""
    key, stored = generate("private")
    grpc_port = _free_port()
    unread = name == "log-pipe"
    settings = {"RELAY_GRPC_HOST": "127.0.0.1", "RELAY_GRPC_PORT": str(grpc_port)}
    with on_core(_OTHER_CORE), NatsServer(threads=_NATS_THREADS) as nats:
        with on_core(_RELAY_CORE):
            process = relay(nats.url, unread, more_keys=f"attacker={stored}", **settings)
            running = process.__enter__()
        try:
            with Publisher(nats.port) as publisher:
                _fill(publisher)
            good = GoodClient(Target(running.port, grpc_port, running.key), nats.port)
            with _log_read(running.output):
                good.measure(_WARM_UP_S)
                calm = good.measure(_CALM_S)
            with _attacking(name, running.port, grpc_port, key) as done:
                attacked = good.measure(seconds)
            good.close()
        finally:
            process.__exit__(None, None, None)
    return calm, attacked, done[-1] if done else 0


@contextmanager
def _attacking(name: str, port: int, grpc_port: int, key: str) -> Iterator[list[int]]:
    """Run the attacker while the block runs; the list grows with what it reports."""
    command = [sys.executable, "-m", "bench.hostile.attacker", name, str(port), str(grpc_port)]
    process = subprocess.Popen(command, env=os.environ | {KEY: key}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    done: list[int] = []
    output = process.stdout
    if output.readline().strip() != "attacking":
        raise SystemExit(f"the attack {name} did not begin")
    reader = threading.Thread(target=lambda: done.extend(int(line) for line in output), daemon=True)
    reader.start()
    try:
        yield done
        if process.poll() is not None:
            raise SystemExit(f"the attack {name} ended by itself")
    finally:
        process.kill()
        process.wait()
        reader.join()
        output.close()


@contextmanager
def _log_read(pipe: int) -> Iterator[None]:
    """Read the relay's output while the block runs, as a collector of logs does that works."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if select.select([pipe], [], [], _READ_S)[0] and not os.read(pipe, 1 << 16):
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()


def _fill(publisher: Publisher) -> None:
    """Store rounds of another game, for attacks that ask for the past."""
    for first in range(1, _HISTORY, 1000):
        publisher.publish([_old_round(number) for number in range(first, first + 1000)])


def _old_round(number: int) -> Round:
    return Round.make(
        round_id=number,
        game_slug="crash" if number % 2 else "dice",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras='{"point":"2.50"}',
        timestamp=1768730430000,
    )


def _p99(phase: Phase) -> float:
    return percentile(phase.delays_s, 0.99) if phase.delays_s else float("inf")


def _row(name: str, calm: Phase, attacked: Phase, ratio: float, done: int) -> list[str]:
    refused = ", ".join(f"{count} {protocol}" for protocol, count in sorted(attacked.refused.items()))
    return [
        ATTACKS[name][0],
        f"{done:,}",
        f"{1000 * _p99(calm):.1f} ms",
        f"{1000 * _p99(attacked):.1f} ms",
        f"{1000 * percentile(attacked.log_delays_s, 0.99):.1f} ms",
        f"**{ratio:.1f}**",
        f"{1000 * max(attacked.delays_s, default=float('inf')):.0f} ms",
        f"{1000 * max(attacked.openings_s, default=float('inf')):.0f} ms",
        refused or "none",
        str(attacked.ended),
        f"{attacked.missing:,}",
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
