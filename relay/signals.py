"""Wait for the signals that stop a process."""

import asyncio
import signal


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
