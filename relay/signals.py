"""Wait for the signals that stop a process, and read files again on SIGHUP."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()


async def stop_requested() -> None:
    """Wait for SIGTERM or SIGINT. A second signal ends the process at once, by the default handler."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    await stop.wait()


class Reloads:
    """What a process reads again on SIGHUP. Without `listening`, SIGHUP ends a process at once."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def add(self, callback: Callable[[], None]) -> None:
        """Call `callback` on each SIGHUP. It must not block; what it raises is logged."""
        self._callbacks.append(callback)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGHUP while the block runs; it never ends the process.

        Except when the terminal was closed from which the process was started: then the process is asked to stop, as
        by SIGTERM, unless SIGHUP was ignored before (``nohup``).
        """
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGHUP)
        ends_with_terminal = before != signal.SIG_IGN and _has_terminal()

        def on_hangup() -> None:
            if ends_with_terminal and not _has_terminal():
                signal.raise_signal(signal.SIGTERM)
                return
            log.info("reload_requested")
            for callback in self._callbacks:
                try:
                    callback()
                except Exception:  # a bug: the others are still called
                    log.exception("reload_failed")

        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
