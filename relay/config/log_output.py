"""Write what this process prints on stderr from a thread, so that a reader that stalls never stops the event loop.

Owns the queue between the two: bounded, in order, in whole lines. While the pipe is full, the disk is full or the
reader is gone, lines wait in the queue. What does not fit is dropped and counted, and a line with the count follows
when writing works again. Does not know what a line says.

Why a thread: docs/adr/0018-a-thread-writes-log-lines.md
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO, cast

_QUEUE_BYTES: Final = 1 << 20
"""Text that may wait: some 5,000 lines, more than a relay prints while a log collector restarts."""
_WRITE_BYTES: Final = 4096
"""Lines are joined up to this size, in which a pipe keeps the writes of several processes apart (PIPE_BUF)."""
_AGAIN_S: Final = 1.0
"""Time between two attempts after an error, such as a full disk or a pipe without a reader."""
_STALLED_S: Final = 0.5
"""At the end of the process: time without progress after which the queued lines are abandoned."""
_FLUSH_S: Final = 2.0
"""At the end of the process: time for all queued lines."""
_LOOK_S: Final = 0.002
_COLLECT_S: Final = 0.01
"""Time for which the thread collects lines after it was woken."""

Notice = Callable[[int], str]
"""Makes the line, without its end, that says how many lines were dropped."""


def plain_notice(dropped: int) -> str:
    """Say how many lines were dropped, where no log format is set."""
    return f"stream-relay: {dropped} lines of output were dropped, since stderr could not be written"


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own. `write` never blocks."""

    def __init__(self, fd: int, *, queue_bytes: int = _QUEUE_BYTES, again_s: float = _AGAIN_S) -> None:
        """Start the thread.

        Args:
            fd: Where to write; it may be blocking, and shared with other processes.
            queue_bytes: How much may wait.
            again_s: Seconds between two attempts after an error.
        """
        self.notice: Notice = plain_notice
        self.dropped = 0
        """How many lines were dropped since the start."""
        self._fd = fd
        self._queue_bytes = queue_bytes
        self._again_s = again_s
        self._lines: deque[bytes] = deque()
        self._size = 0  # bytes in the queue
        self._is_full = False  # from the first line dropped until half of the queue is free
        self._unreported = 0  # dropped lines that no line has reported yet
        self._written = 0  # bytes, so that progress is seen
        self._sleeps = False  # nothing is queued, and everything taken has been written
        self._gave_up = False  # at the end, after an error
        self._changed = threading.Condition()  # of everything above; its lock may be taken again by a signal handler
        self._ending = threading.Event()
        threading.Thread(target=self._run, name="log-output", daemon=True).start()

    def write(self, text: str) -> None:
        """Queue text, usually whole lines; drop it when the queue is full."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            size = self._size + len(data)
            if size > self._queue_bytes or (self._is_full and size > self._queue_bytes // 2):
                self._is_full = True
                lines = max(1, data.count(b"\n"))
                self.dropped += lines
                self._unreported += lines
                return
            self._is_full = False
            self._report()
            self._append(data)
            if self._sleeps:
                self._sleeps = False
                self._changed.notify()

    def flush(self, *, within_s: float = _FLUSH_S, stalled_s: float = _STALLED_S) -> bool:
        """Wait until everything queued is written, for a bounded time; return whether it is. For the end of a process.

        Args:
            within_s: Seconds for all of it.
            stalled_s: Seconds without progress after which the rest is abandoned. An error ends the wait too.
        """
        self._ending.set()  # the next error is the last attempt
        now = time.monotonic()
        deadline, stalled_at, written = now + within_s, now + stalled_s, -1
        while now < min(deadline, stalled_at):
            with self._changed:
                if self._sleeps or self._gave_up:
                    return self._sleeps
                if self._written != written:
                    written, stalled_at = self._written, now + stalled_s
            time.sleep(_LOOK_S)
            now = time.monotonic()
        return False

    def _append(self, data: bytes) -> None:
        self._lines.append(data)
        self._size += len(data)

    def _report(self) -> None:
        """Queue the line about dropped lines, in their place."""
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self._append(f"{self.notice(count)}\n".encode("utf-8", "backslashreplace"))

    def _run(self) -> None:
        while not self._gave_up:
            woken = False
            with self._changed:
                if not self._lines:
                    self._report()
                while not self._lines:
                    self._sleeps = True
                    self._changed.wait()
                    woken = True
            if woken:  # each wake-up costs the event loop 70 us
                self._ending.wait(_COLLECT_S)
            with self._changed:
                batch = self._take()
            self._write_all(batch)

    def _take(self) -> bytes:
        """Take the next lines, as many as may leave in one write."""
        taken = [self._lines.popleft()]
        size = len(taken[0])
        while self._lines and size + len(self._lines[0]) <= _WRITE_BYTES:
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        self._size -= size
        return b"".join(taken)

    def _write_all(self, batch: bytes) -> None:
        """Write lines to their end, however long that takes: after an error, what was not written is tried again."""
        rest = memoryview(batch)
        while rest and not self._gave_up:
            try:
                count = os.write(self._fd, rest)
            except BlockingIOError:  # another process has put the shared file into non-blocking mode
                waiting = select.poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll(self._again_s * 1000)
            except OSError:  # no space, no reader, not open
                self._ending.wait(self._again_s)
                self._gave_up = self._ending.is_set()
            else:
                rest = rest[count:]
                with self._changed:
                    self._written += count


class LineStream(io.TextIOBase):
    """Takes the place of `sys.stderr`: what is printed goes to a `LineWriter`, in whole lines."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LineWriter, original: TextIO) -> None:
        """`original` is the file that is replaced; it answers whether it is a terminal."""
        self._writer = writer
        self._original = original
        self._begun = threading.local()  # what each thread has printed of a line

    def write(self, text: str, /) -> int:
        whole, end, rest = (getattr(self._begun, "text", "") + text).rpartition("\n")
        self._begun.text = rest
        if end:
            self._writer.write(whole + end)
        return len(text)

    def flush(self) -> None:
        """Pass on what has no end of line yet, such as a progress bar. Does not wait until it is written."""
        begun = getattr(self._begun, "text", "")
        if begun:
            self._begun.text = ""
            self._writer.write(begun)

    def isatty(self) -> bool:
        return self._original.isatty()

    def fileno(self) -> int:
        return self._original.fileno()

    def writable(self) -> bool:
        return True


_writer: LineWriter | None = None


def install() -> LineWriter | None:
    """Let a thread write everything that Python prints on stderr: log lines, warnings, tracebacks.

    Returns the writer; None when the process has no stderr. Called again, it returns the same one.
    """
    global _writer
    if _writer is None and sys.stderr is not None:
        original = sys.stderr
        original.flush()
        _writer = writer = LineWriter(original.fileno())
        sys.stderr = cast("TextIO", LineStream(writer, original))
        atexit.register(_finish, writer, original)
    return _writer


def dropped_lines() -> int:
    """Return how many lines of this process were dropped, since stderr could not be written."""
    return 0 if _writer is None else _writer.dropped


def _finish(writer: LineWriter, original: TextIO) -> None:
    """Write the last lines. Where that works, what the interpreter prints after this goes to stderr directly."""
    sys.stderr.flush()
    if writer.flush():
        sys.stderr = original
