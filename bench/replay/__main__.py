"""``python -m bench.replay [ROUNDS]``: history at full speed, and its effect on live links, reconnects and REST.

The relay has one core for itself; clients and nats-server share the other.
"""

import sys
from typing import Final

from bench._nats import NatsServer
from bench._process import allow_files, on_core
from bench._relay import relay
from bench._report import heading
from bench.replay import live, rest, speed, storm
from bench.replay.filled_log import FilledLog

_ROUNDS: Final = 1_000_000
_ALLOWED: Final = range(20_000, 10_000_001)
"""With fewer, the slower sections would reach the end of the log."""
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1


def main(count: int) -> None:
    allow_files(4000)
    heading("Replay", f"python -m bench.replay {count}")
    with on_core(_CLIENT_CORE), NatsServer() as nats:
        log = FilledLog(nats)
        log.fill(count)
        with on_core(_RELAY_CORE), relay(nats.url) as process, on_core(_CLIENT_CORE):
            speed.run(nats, log, process, relay_core=_RELAY_CORE)
            rest.run(log, process, relay_core=_RELAY_CORE, client_core=_CLIENT_CORE)
            live.run(log, process, client_core=_CLIENT_CORE)
        storm.run(nats, log, relay_core=_RELAY_CORE, client_core=_CLIENT_CORE)


def _count(arguments: list[str]) -> int:
    if not arguments:
        return _ROUNDS
    [text] = arguments[:1]
    if len(arguments) > 1 or not text.isdecimal() or int(text) not in _ALLOWED:
        raise SystemExit(
            f"{' '.join(arguments)!r} is not a number of rounds; use {_ALLOWED.start} to {_ALLOWED.stop - 1}"
        )
    return int(text)


if __name__ == "__main__":
    main(_count(sys.argv[1:]))
