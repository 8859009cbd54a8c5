"""Accept connections to the HTTP port: as far as a turn of the event loop has time, and none that there is no room for.

Owns when a connection is accepted. An event loop's own server accepts everything that waits, at once: a burst of
connections then delays all links, and takes every file that the process may open. Does not know HTTP.
"""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from relay.admission.strangers import Share
from relay.turns import Turns

log = structlog.get_logger()

_PER_TURN: Final = 8
"""The most connections accepted in one turn of the event loop. The others wait in the kernel's backlog."""
_PAUSE_S: Final = 0.02
"""Time until the next attempt, when there is no room."""
_READ_TURNS: Final = 4
"""Turns of the event loop in which the first bytes of a connection are read, with one to spare."""
_NO_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REPORT_S: Final = 60.0
"""Least time between two log lines about files."""


Starting = Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]


class Listener:
    """Accepts connections of one listening socket until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        strangers: Share,
        turns: Turns,
        refuses: bool = False,
    ) -> None:
        """Start to accept.

        Args:
            listening: A non-blocking listening socket; closed with this listener.
            factory: Makes the protocol of a connection, which enters `strangers` when it is made.
            strangers: The share that new connections belong to.
            turns: What each turn has time for; one connection is accepted in every turn.
            refuses: Close a connection for which there is no room while no member of the share is idle. Else it waits.
        """
        self._socket = listening
        self._factory = factory
        self._strangers = strangers
        self._turns = turns
        self._refuses = refuses
        self._loop = asyncio.get_running_loop()
        self._starting: set[Starting] = set()
        self._resumed: asyncio.TimerHandle | None = None
        self._report_at = 0.0
        self._turn_times = deque([0.0] * _READ_TURNS, maxlen=_READ_TURNS)
        """Loop times of the last turns here. A connection is only as old as the loop has had turns to read from it."""
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more connections; do nothing when this was called before."""
        if self._resumed is not None:
            self._resumed.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _accept(self) -> None:
        self._turn_times.append(self._loop.time())
        for number in range(_PER_TURN):
            if number and self._turns.is_over():
                return
            read_up_to = self._turns.waited_since(self._turn_times[0])
            coming = self._coming
            has_room = self._strangers.has_room(min(read_up_to, self._turn_times[0]), coming=coming)
            is_refused = not has_room and self._refuses and not coming and not self._strangers.has_idle
            if not has_room and not is_refused:
                if not coming:  # else there may be room in the next turn
                    self._pause()
                return
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:  # mostly EAGAIN: none is waiting; others are errors of that connection (accept(2))
                if error.errno in _NO_FILES:
                    self._no_files(error)
                return
            if is_refused:
                accepted.close()
                continue
            accepted.setblocking(False)
            self._start(accepted)

    @property
    def _coming(self) -> int:
        """How many accepted connections have not entered the share yet."""
        return len(self._starting)

    def _start(self, accepted: socket.socket) -> None:
        """Run the one step in which a transport is made. Then it waits for the turn in which that is used: no task."""
        starting = self._loop.connect_accepted_socket(self._factory, accepted)
        with suppress(OSError, StopIteration):  # the client has left
            made: asyncio.Future[None] = self._turns.step(partial(starting.send, None))
            self._starting.add(starting)
            made.add_done_callback(partial(self._started, starting))

    def _started(self, starting: Starting, made: asyncio.Future[None]) -> None:
        self._starting.discard(starting)
        with suppress(OSError, StopIteration):
            starting.send(None)
            raise AssertionError("the transport of a connection waits for something else")

    def _no_files(self, error: OSError) -> None:
        """Close a connection of a stranger for the one that waits, and try again soon: a level-triggered wait spins."""
        self._strangers.shed_one()
        now = self._loop.time()
        if now >= self._report_at:
            self._report_at = now + _REPORT_S
            log.error("accept_failed", error=str(error), advice="raise the limit of open files (ulimit -n)")
        self._pause()

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        self._resumed = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._resumed = None
        self._loop.add_reader(self._socket, self._accept)
