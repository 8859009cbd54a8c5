"""Scrapes share one reading of the metrics; who may scrape is a setting."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import brotli
import pytest
from prometheus_client.core import GaugeMetricFamily
from pydantic import ValidationError

from relay.config.sections import HttpSettings
from relay.http.monitoring import scrapes
from relay.http.monitoring.exposition import scrape_of, serving_probes
from tests.relay.conftest import KEY_HEADER, StartRelay
from tests.relay.raw_http import exchange
from tests.waiting import until

pytestmark = pytest.mark.service

FORMATS: Final = {
    "": "text/plain; version=0.0.4; charset=utf-8",
    "text/plain;version=1.0.0": "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
    "application/openmetrics-text;version=1.0.0": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=abc": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=99.1": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "text/plain; version=x.y": "text/plain; version=0.0.4; charset=utf-8",
}
"""``Accept``, and how the content type of the answer begins."""


class CountingMetrics:
    """Yields how often it has been read, and much else."""

    def __init__(self) -> None:
        self.read = 0
        self.fails = False

    def collect(self) -> Iterator[Any]:
        self.read += 1
        if self.fails:
            raise RuntimeError("simulated")
        yield GaugeMetricFamily("times_read", "Times.", value=self.read)
        yield GaugeMetricFamily("more", "Text. " * 500, value=1)


@pytest.fixture
def metrics() -> CountingMetrics:
    return CountingMetrics()


@pytest.fixture
async def port(metrics: CountingMetrics) -> AsyncIterator[str]:
    """The URL of a port that shows `metrics`."""
    async with serving_probes(scrape_of(metrics), lambda: None, host="127.0.0.1", port=0, setting="X") as port:
        yield f"http://127.0.0.1:{port}"


async def test_scrapers_share_one_reading(
    port: str, metrics: CountingMetrics, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any format and coding; after a second the metrics are read again."""
    monkeypatch.setattr(scrapes, "FRESH_S", 3600.0)

    async def scrape(accept: str, coding: str) -> None:
        async with client.get(f"{port}/metrics", headers={"Accept": accept, "Accept-Encoding": coding}) as answer:
            assert (answer.status, "times_read 1.0" in await answer.text()) == (200, True)

    await asyncio.gather(*(scrape(accept, coding) for accept in FORMATS for coding in ("identity", "gzip", "br") * 2))
    assert metrics.read == 1
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)
    async with client.get(f"{port}/metrics") as answer:
        assert "times_read 2.0" in await answer.text()


@pytest.mark.parametrize(("accept", "content_type"), FORMATS.items(), ids=range(len(FORMATS)))
async def test_format_of_an_answer(port: str, accept: str, content_type: str) -> None:
    """One of those that Prometheus has, whatever version a client asks for; no part of the answer is the client's."""
    answer = await exchange(port, "GET /metrics HTTP/1.1", f"Accept: {accept}")

    assert answer.status == 200
    assert answer.headers["content-type"].startswith(content_type)


@pytest.mark.parametrize("coding", ["gzip", "br", None])
async def test_coding_of_an_answer(port: str, coding: str | None) -> None:
    """As the scraper accepts it."""
    lines = [] if coding is None else [f"Accept-Encoding: {coding}"]
    answer = await exchange(port, "GET /metrics HTTP/1.1", *lines)
    unpacked = {None: bytes, "br": brotli.decompress, "gzip": lambda body: zlib.decompress(body, 31)}[coding]

    assert answer.headers.get("content-encoding") == coding
    assert b"times_read 1.0" in unpacked(answer.body)


async def test_scrape_that_failed_is_not_kept(port: str, metrics: CountingMetrics) -> None:
    """The next one reads the metrics again."""
    metrics.fails = True
    assert (await exchange(port, "GET /metrics HTTP/1.1")).status == 500
    metrics.fails = False
    assert (await exchange(port, "GET /metrics HTTP/1.1")).status == 200


async def test_scraper_that_leaves_does_not_cancel_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both wait for the same reading."""
    metrics, go = CountingMetrics(), asyncio.Event()
    waiting = 0

    async def prepare() -> None:
        nonlocal waiting
        waiting += 1
        await go.wait()

    scrape = scrapes.Scrapes(metrics, prepare=prepare).scrape
    async with serving_probes(scrape, lambda: None, host="127.0.0.1", port=0, setting="X") as port:
        url = f"http://127.0.0.1:{port}"
        leaving, staying = (asyncio.create_task(exchange(url, "GET /metrics HTTP/1.1")) for _ in range(2))
        await until(lambda: waiting)
        leaving.cancel()
        await asyncio.wait([leaving])
        go.set()
        answer = await staying

    assert (answer.status, metrics.read, waiting) == (200, 1, 1)


def test_metrics_with_a_key_need_the_ids_of_the_keys() -> None:
    """Metrics are of all clients together: not every client may read them."""
    for wrong in ({"metrics": "key"}, {"metrics_keys": "a"}, {"metrics": "key", "metrics_keys": " , "}):
        with pytest.raises(ValidationError, match="must be set together"):
            HttpSettings.model_validate(wrong)
    assert HttpSettings(metrics="key", metrics_keys=" a, b,").metrics_key_ids == {"a", "b"}


@pytest.mark.parametrize(
    ("settings", "without", "with_key"),
    [
        ({}, 200, 200),
        ({"metrics": "off", "docs": "off"}, 404, 404),
        ({"metrics": "key", "metrics_keys": "demo", "docs": "key"}, 401, 200),
    ],
    ids=["public", "off", "key"],
)
async def test_who_may_read_what_on_the_http_port(
    start_relay: StartRelay, client: aiohttp.ClientSession, settings: dict[str, Any], without: int, with_key: int
) -> None:
    """The port for monitoring always shows metrics. The page of the API shows nothing without the description."""
    http = HttpSettings.model_validate({"host": "127.0.0.1", "port": 0, **settings})
    async with start_relay(http=http) as url:
        for path in ("/metrics", "/openapi.json"):
            for headers, status in (({}, without), (KEY_HEADER, with_key)):
                async with client.get(url + path, headers=headers) as answer:
                    assert (path, answer.status) == (path, status)
                    assert status == 200 or (await answer.json())["success"] is False
        async with client.get(f"{url}/docs") as answer:
            assert answer.status == (404 if without == 404 else 200)
        async with client.get(f"{url}/nowhere") as answer:
            assert ("/docs lists" in (await answer.json())["error"]) is (without != 404)


async def test_other_keys_do_not_read_metrics(start_relay: StartRelay) -> None:
    """Only those that are named; a bearer credential is a key too, as Prometheus sends it."""
    http = HttpSettings(host="127.0.0.1", port=0, metrics="key", metrics_keys="prometheus")
    async with start_relay(http=http) as url:
        answer = await exchange(url, "GET /metrics HTTP/1.1", f"Authorization: Bearer {KEY_HEADER['X-API-Key']}")

    assert (answer.status, answer.json["code"]) == (403, "not_allowed")


async def test_description_is_cached_by_clients(relay: str, client: aiohttp.ClientSession) -> None:
    """With an ETag: 304 when a client has it, in any coding; the page has one too."""
    for path in ("/openapi.json", "/docs"):
        async with client.get(relay + path) as answer:
            etag, caching = answer.headers["ETag"], answer.headers["Cache-Control"]
            assert answer.headers["Content-Encoding"] in ("gzip", "br")
        assert re.fullmatch(r'W/"[\w-]+"', etag)
        assert caching == "no-cache"
        for known, status in ((etag, 304), ('"other"', 200)):
            async with client.get(relay + path, headers={"If-None-Match": known}) as answer:
                assert (answer.status, answer.headers["ETag"]) == (status, etag)
