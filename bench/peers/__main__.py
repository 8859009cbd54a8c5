"""``python -m bench.peers [PART ...] [--links N,N]``: a relay beside other servers, in one run on one machine.

Each server has one core to itself; the compiled client, the publisher and nats-server share the other. CPU is the CPU
time of the server's process. Every message of every stream is compared with what was published.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bench._process import allow_files, on_core
from bench._report import heading
from bench.fanout.ceiling import compiler
from bench.peers import connects, fanout, memory, storm
from bench.peers.programs import missing, program

_LINKS: Final = (50, 500, 2000)
_SPARE_FILES: Final = 400
_PARTS: Final[dict[str, tuple[str, Callable[[Sequence[int]], None]]]] = {
    "grpc": ("Fan-out over gRPC", lambda links: fanout.run("grpc", links)),
    "websocket": ("Fan-out over WebSocket", lambda links: fanout.run("websocket", links)),
    "sse": ("Fan-out over SSE", lambda links: fanout.run("sse", links)),
    "connects": ("New streams", lambda links: connects.run(max(links))),
    "storm": ("Clients that come back at the same moment", lambda _: storm.run()),
    "memory": ("Memory of a stream", lambda links: memory.run(max(links))),
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="A relay beside other servers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; all by default")
    parser.add_argument("--links", default=",".join(map(str, _LINKS)), help="numbers of streams, with commas between")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in _PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(_PARTS)}")
    try:
        links = [int(text) for text in given.links.split(",")]
    except ValueError:
        parser.error(f"--links {given.links!r} is not numbers with commas between")
    if lacking := missing():
        raise SystemExit(lacking)
    for name in ("client", "grpcserver", "centrifugo"):
        program(name)  # before anything is measured
    allow_files(max(*links, storm.CLIENTS) + _SPARE_FILES)
    if not compiler():
        print("There is no C compiler here (cc), so the bare loop in C is missing.")
    with on_core(fanout.CLIENT_CORE):
        for part in given.parts or _PARTS:
            title, run = _PARTS[part]
            heading(title, f"python -m bench.peers {part} --links {given.links}")
            run(links)


if __name__ == "__main__":
    main(sys.argv[1:])
