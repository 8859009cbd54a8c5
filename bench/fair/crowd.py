"""``python -m bench.fair.crowd NAME PORT EPOCH ROUNDS``: many readers with one key, until the process is killed.

The key is in the environment. Prints ``reading`` when each has got its first bytes.
"""

import os
import random
import select
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final

from bench._process import allow_files
from bench.hostile.sockets import Target

KEY: Final = "CROWD_KEY"
_FILES: Final = 4096
_MANY: Final = 300
_CONNECTIONS: Final = 500
_PIPELINED: Final = 20
_SMALL: Final = 4096
_READ_BYTES: Final = 1 << 18
_PATIENCE_S: Final = 120

Begin = Callable[[Target, str, int], socket.socket]


def _replay(target: Target, epoch: str, rounds: int) -> socket.socket:
    return _asked(target, _stream(target, epoch, rounds))


def _stalled(target: Target, epoch: str, rounds: int) -> socket.socket:
    return _asked(target, _stream(target, epoch, rounds), receive_buffer=_SMALL)


def _pages(target: Target, epoch: str, rounds: int) -> socket.socket:
    """Pages of the past, all different."""
    befores = (random.randrange(rounds // 4, rounds * 3 // 4) for _ in range(_PIPELINED))
    heads = (target.head("GET", f"/api/history?limit=500&before={epoch}-{before}") for before in befores)
    return _asked(target, b"".join(heads))


def _recent(target: Target, epoch: str, rounds: int) -> socket.socket:
    """Rounds that the relay has in memory."""
    del epoch, rounds
    return _asked(target, target.head("GET", "/api/history/crash?limit=400") * _PIPELINED)


CROWDS: Final[Mapping[str, tuple[str, int, Begin]]] = {
    "replays": (f"{_MANY} replays", _MANY, _replay),
    "stalled": (f"{_MANY} replays that are not read", _MANY, _stalled),
    "pages": (f"{_CONNECTIONS} connections with pipelined history requests", _CONNECTIONS, _pages),
    "recent": (f"{_CONNECTIONS} connections with requests answered from memory", _CONNECTIONS, _recent),
}


def _stream(target: Target, epoch: str, rounds: int) -> bytes:
    return target.head("GET", f"/sse?after={epoch}-{random.randrange(rounds // 2)}")


def _asked(target: Target, request: bytes, *, receive_buffer: int | None = None) -> socket.socket:
    connection = target.connect(receive_buffer=receive_buffer)
    connection.sendall(request)
    connection.setblocking(False)
    return connection


def main(name: str, port: int, epoch: str, rounds: int) -> None:
    """Keep so many readers; one that was answered, or ended, is replaced."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    allow_files(_FILES)
    random.seed(11)
    target = Target(port, 0, os.environ[KEY])
    _, many, begin = CROWDS[name]
    reads = name != "stalled"
    held = {}
    poll = select.epoll()
    for _ in range(many):
        connection = begin(target, epoch, rounds)
        held[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN | (0 if reads else select.EPOLLONESHOT))
    answers = dict.fromkeys(held, 0)
    begun = set[int]()
    is_said = False
    while True:
        for number, _ in poll.poll(_PATIENCE_S):
            begun.add(number)
            if not reads:
                continue
            connection = held[number]
            try:
                data = connection.recv(_READ_BYTES)
            except OSError:
                data = b""
            answers[number] += data.count(b"HTTP/1.1 200")
            if data and (answers[number] < _PIPELINED):
                continue
            poll.unregister(number)
            connection.close()
            del held[number], answers[number]
            connection = begin(target, epoch, rounds)
            held[connection.fileno()], answers[connection.fileno()] = connection, 0
            poll.register(connection, select.EPOLLIN)
        if not is_said and len(begun) >= many // 2:
            is_said = True
            print("reading", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
