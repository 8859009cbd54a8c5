"""The most that a loop over sockets can do, which writes bytes made beforehand, in a process of its own.

One is in Python, `python_loop`; one is in C, `c_loop`, if the machine has a compiler.
"""

import fcntl
import multiprocessing
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

from bench._cache import built

_SOURCE: Final = Path(__file__).with_name("ceiling.c")
_PIPE_BYTES: Final = 1 << 20
"""A burst is one write to the pipe, and one read from it."""


class Ceiling(NamedTuple):
    """The handle of such a process, which listens on `port` for the number of connections given."""

    pid: int
    port: int
    write: Callable[[bytes], object]
    """Have bytes written to every connection; does not wait for it. What piles up meanwhile is written together."""


@contextmanager
def python_loop(connections: int) -> Iterator[Ceiling]:
    """Run the process, on the cores this one is on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(connections, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield Ceiling(process.pid, port, ours.send_bytes)
    finally:
        process.kill()
        process.join()


def _main(connections: int, pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        sockets = [listener.accept()[0] for _ in range(connections)]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the relay's are
    while True:
        data = pipe.recv_bytes()
        while pipe.poll():
            data += pipe.recv_bytes()
        for sock in sockets:
            sock.send(data)


def compiler() -> str | None:
    """Return the C compiler of this machine; None if there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@contextmanager
def c_loop(connections: int) -> Iterator[Ceiling]:
    """Compile the program, unless that was done, and run it, on the cores this process is on."""
    program = built("ceiling", [_SOURCE], [str(compiler()), "-O2", "-o", "{output}", str(_SOURCE)])
    process = subprocess.Popen([program, str(connections)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    pipe = process.stdin.fileno()
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        yield Ceiling(process.pid, int(process.stdout.readline()), lambda data: os.write(pipe, data))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
