"""The most that Python can do: a plain loop over sockets that writes bytes made beforehand, in a process of its own."""

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection


class Ceiling:
    """The handle of such a process, which listens on `port` for the number of connections given."""

    def __init__(self, pid: int, port: int, pipe: Connection) -> None:
        self.pid, self.port, self._pipe = pid, port, pipe

    def write(self, data: bytes) -> None:
        """Have `data` written to every connection; does not wait for it."""
        self._pipe.send_bytes(data)


@contextmanager
def ceiling(connections: int) -> Iterator[Ceiling]:
    """Run the process, on the cores this one is on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(connections, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield Ceiling(process.pid, port, ours)
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
        for sock in sockets:
            sock.send(data)
