"""A network that breaks connections: forwards to a relay and cuts every connection after a number of bytes."""

import asyncio
import contextlib

from roundlog.tasks import cancel_and_wait
from tests.network.forwarder import Forwarder, copy
from tests.network.streams import Streams


class CuttingProxy(Forwarder):
    """Counts its cuts. A cut can be anywhere: within a frame, an event, or a character."""

    def __init__(self, relay_port: int, *, carry_bytes: int) -> None:
        super().__init__()
        self._relay_port = relay_port
        self._carry_bytes = carry_bytes
        self.cuts = 0

    async def target(self) -> int:
        return self._relay_port

    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward one connection until the relay closes it, or it is cut."""
        asking = asyncio.create_task(copy(near.reader, far.writer), name="proxy-asking")
        try:
            await self._answer(far, near)
        finally:
            await cancel_and_wait(asking)

    async def _answer(self, relay: Streams, client: Streams) -> None:
        left = self._carry_bytes
        with contextlib.suppress(ConnectionError):
            while data := await relay.reader.read(left):
                client.writer.write(data)
                await client.writer.drain()
                left -= len(data)
                if left == 0:
                    self.cuts += 1
                    return
