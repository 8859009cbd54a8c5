"""Answers to scrapes: the metrics of a process are read once a second at most, for all who scrape.

Owns how often that is, and the forms of an answer: formats of Prometheus and content codings. Does not know metrics.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aiohttp import web

from relay.http.compress import coding_of, compressed
from relay.http.connections.guarded import guarded
from relay.http.parameters import listed
from relay.turns import Turns

if TYPE_CHECKING:
    from prometheus_client.core import Metric

FRESH_S: Final = 1.0
"""How long an answer is used again. Anybody may scrape, as often as they like; Prometheus does each 15 s or more."""
_VERSIONS: Final = ("0.0.1", "0.0.4", "1.0.0")
"""Of the formats of Prometheus. Its client reads any text as a version, fails for some, and sends the others back."""
_VERSION: Final = re.compile(r";\s*version=([^;,]*)")


class Collector(Protocol):
    """Yields metrics to the Prometheus client."""

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric with its current value."""
        ...


class Scrapes:
    """Answers scrapes of one collector, on any number of ports."""

    def __init__(self, collector: Collector, *, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """Read nothing yet. The Prometheus client is imported at the first scrape.

        Args:
            collector: The metrics; those of the process (memory, CPU, files) are added.
            prepare: Awaited before each time that `collector` is read.
        """
        self._collector = collector
        self._prepare = prepare
        self._newest: _Values | None = None
        self._reading: asyncio.Task[_Values] | None = None

    async def scrape(self, request: web.Request) -> web.Response:
        """Answer in the format and the coding that the scraper accepts."""
        values = await self._values()
        return await values.answer(request)

    async def _values(self) -> "_Values":
        if self._newest is not None and asyncio.get_running_loop().time() < self._newest.read_at + FRESH_S:
            return self._newest
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="scrape")
            self._reading.add_done_callback(self._has_read)
        return await asyncio.shield(self._reading)  # one scraper may leave while the others wait

    async def _read(self) -> "_Values":
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._prepare is not None:
            await self._prepare()
        of_process = ProcessCollector(registry=CollectorRegistry()).collect()
        self._newest = _Values([*self._collector.collect(), *of_process], asyncio.get_running_loop().time())
        return self._newest

    def _has_read(self, reading: "asyncio.Task[_Values]") -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # those who wait get it; when all have left, asyncio would log it


class _Values:
    """The metrics of one moment, and their forms that were asked for."""

    def __init__(self, metrics: Sequence["Metric"], read_at: float) -> None:
        self.read_at = read_at  # loop time
        self._metrics = metrics
        self._forms: dict[tuple[str, str | None], _Form] = {}  # by format and coding
        self._rendering = asyncio.Lock()

    def collect(self) -> Sequence["Metric"]:
        """Return the metrics; the Prometheus client calls it."""
        return self._metrics

    async def answer(self, request: web.Request) -> web.Response:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(_VERSION.sub(_known_version, listed(request.headers, "Accept")))
        accepted = coding_of(listed(request.headers, "Accept-Encoding"))
        async with self._rendering:
            form = await self._form(content_type, accepted, lambda: encode(self), guarded(request).turns)
        coding = {} if form.coding is None else {"Content-Encoding": form.coding}
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding", **coding}
        return web.Response(body=form.body, headers=headers)

    async def _form(
        self, content_type: str, accepted: str | None, encode: Callable[[], bytes], turns: Turns
    ) -> "_Form":
        """Return a form of the answer; one is made at most once."""
        plain = self._forms.get((content_type, None))
        if plain is None:
            plain = self._forms[content_type, None] = _Form(encode(), None)
        form = self._forms.get((content_type, accepted))
        if form is None:
            form = self._forms[content_type, accepted] = _Form(*await compressed(plain.body, accepted or "", turns))
        return form


class _Form(NamedTuple):
    body: bytes
    coding: str | None


def _known_version(found: re.Match[str]) -> str:
    return found[0] if found[1].strip() in _VERSIONS else ""
