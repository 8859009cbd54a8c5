"""Readers of the past: walks through the pages of history, and bulk replays from the oldest round to the head."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from grpc import aio

from rounds import datastream_pb2 as pb
from tests.faults.clients.client import SILENCE_S, Address, Ended, Opened, World, sequence_of
from tests.faults.clients.rpc import GrpcClient
from tests.faults.clients.websocket import session
from tests.faults.plan import ClientPlan
from tests.faults.values import Item
from tests.rpc.caller import Caller, status_of, text_of

_NEXT: Final = re.compile(r'<([^>]+)>; *rel="next"')
_LIMIT: Final = 200
_PAUSE_S: Final = 1.0


class HistoryReader:
    """Walks through all pages of a game, again and again; each walk that came to its end is judged."""

    def __init__(self, plan: ClientPlan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.walks: list[list[int]] = []
        """For each complete walk: the sequences of its rounds, as they came."""
        self.last: list[int] | None = None
        """The walk that was made when all was well again."""
        self.received = 0
        self._random = random.Random(plan.seed)

    async def run(self) -> None:
        """Walk until cancelled."""
        while True:
            with suppress(OSError, TimeoutError, aiohttp.ClientError):  # the next walk begins at the newest page
                await self._walk()
            await asyncio.sleep(_PAUSE_S)

    async def walk_last(self) -> bool:
        """Walk when all is well again; False when a page could not be had."""
        with suppress(OSError, TimeoutError, aiohttp.ClientError):
            self.last = await self._walk()
        return self.last is not None

    async def _walk(self) -> list[int] | None:
        """Walk once, through any relay; None when a page could not be had."""
        address = self.world.address(self._random)
        url: str | None = f"{address.url}/api/history/{self.plan.games[0]}?limit={_LIMIT}"
        found: list[int] = []
        async with session(slow=False) as http:
            while url is not None:
                async with http.get(url, headers={"X-API-Key": self.world.key}) as answer:
                    if answer.status != 200:
                        return None
                    found += [sequence_of(fields["cursor"]) for fields in await answer.json()]
                    more = _NEXT.search(answer.headers.get("Link", ""))
                    url = None if more is None else urljoin(address.url, urlsplit(more[1])._replace(netloc="").geturl())
        self.walks.append(found)
        self.received += len(found)
        return found


class BulkReader(GrpcClient):
    """Replays everything after its cursor in batches, and calls again when it has reached the head."""

    async def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        request = pb.ReplayRequest(game_slugs=self.plan.games, filter=self.start(None).get("filter"), after=after or "")
        async with Caller(address.grpc, self.world.key) as caller:
            call = caller.call(request, timeout_s=60)
            try:
                async with asyncio.timeout(SILENCE_S):
                    head = text_of(await call.initial_metadata()).get("head-cursor")
                yield Opened()
                while (batch := await call.read()) is not aio.EOF:
                    for message in batch.rounds:
                        yield self._item(message)
                raise Ended("OK", cursor=self._reached(head), retry_ms=500)
            except aio.AioRpcError as error:
                code, _, trailers = status_of(error)
                if "resume-cursor" not in trailers:
                    raise ConnectionError(error.details()) from None
                raise self.end(code.name, trailers) from None
            finally:
                call.cancel()

    def _reached(self, head: str | None) -> str | None:
        """A replay that ended with OK has sent everything up to the head of its metadata."""
        if head is None or (self.cursor is not None and sequence_of(self.cursor) > sequence_of(head)):
            return self.cursor
        return head
