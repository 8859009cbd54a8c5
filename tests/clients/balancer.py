"""A load balancer in front of one relay at a time: between two relays, new connections wait for the next one."""

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.network.forwarder import Forwarder, copy, until_one_ends
from tests.network.streams import Streams


class Balancer(Forwarder):
    """Forwards bytes both ways, and the end of each direction."""

    def __init__(self) -> None:
        super().__init__()
        self._relay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def forwarding_to(self, url: str) -> Iterator[None]:
        """Forward new connections to the relay at `url` while the block runs."""
        port = urlsplit(url).port
        assert port is not None
        self._relay.set_result(port)
        try:
            yield
        finally:
            self._relay = asyncio.get_running_loop().create_future()

    async def target(self) -> int:
        return await asyncio.shield(self._relay)

    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward one connection until either end closes it."""
        await until_one_ends(copy(near.reader, far.writer), copy(far.reader, near.writer))
