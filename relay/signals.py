"""When a process of ours is asked to stop."""

import asyncio
import signal


async def stop_requested() -> None:
    """Wait for SIGTERM or SIGINT. A second one kills the process at once, as if we had no handler."""
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
