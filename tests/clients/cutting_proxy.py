"""A network that breaks connections: forwards to a relay and cuts every connection after a number of bytes."""

import asyncio
import contextlib

from tests.clients.forwarder import Forwarder, close, copy


class CuttingProxy(Forwarder):
    """Counts its cuts. A cut can be anywhere: within a frame, an event, or a character."""

    def __init__(self, relay_port: int, *, carry_bytes: int) -> None:
        super().__init__()
        self._relay_port = relay_port
        self._carry_bytes = carry_bytes
        self.cuts = 0

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it, or it is cut."""
        from_relay, to_relay = await asyncio.open_connection("127.0.0.1", self._relay_port)
        asking = asyncio.create_task(copy(reader, to_relay), name="proxy-asking")
        try:
            await self._answer(from_relay, writer)
        finally:
            asking.cancel()
            await close(to_relay)

    async def _answer(self, from_relay: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._carry_bytes
        with contextlib.suppress(ConnectionError):
            while data := await from_relay.read(left):
                writer.write(data)
                await writer.drain()
                left -= len(data)
                if left == 0:
                    self.cuts += 1
                    return
