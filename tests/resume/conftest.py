"""A relay in this process, and the log that it reads."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from auth.key_ring import KeyRing
from auth.tokens import TokenSigner
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.http.monitoring import scrapes
from relay.serve import running_relay
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.relay.conftest import wait_ready
from tests.resume.log_writer import LogWriter

StartRelay = Callable[..., AbstractAsyncContextManager[str]]

_SIGNER = TokenSigner.ephemeral()
"""One server for all relays of a test, as in a deployment."""


@asynccontextmanager
async def running(nats: LogSettings, *, port: int = 0, **sections: Any) -> AsyncIterator[str]:
    """Run a relay on a log; `sections` are sections of its settings."""
    sections.setdefault("drain", {"grace_s": 0.5, "margin_s": 0.5})
    sections.setdefault("links", {"retry_ms": 50})
    sections.setdefault("grpc", {"host": "127.0.0.1", "port": 0})
    settings = Settings(nats=nats, http=HttpSettings(host="127.0.0.1", port=port), **sections)
    async with running_relay(settings, KeyRing.demo(), _SIGNER) as at:
        await wait_ready(at.url)
        yield at.url


@pytest.fixture
def start_relay(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> StartRelay:
    """Start a relay: ``async with start_relay(replay={...}) as url``. Arguments are sections of the settings."""
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)  # metrics are read at each scrape
    return lambda **sections: running(LogSettings(url=nats.url), **sections)


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    """A writer of the log, which can also purge and rebuild it."""
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        yield writer


@pytest.fixture
async def relay(log: LogWriter, start_relay: StartRelay) -> AsyncIterator[str]:
    """The URL of a relay whose memory holds 20 rounds of a game. Older rounds are read from the log."""
    async with start_relay(replay={"ring_rounds": 20}) as url:
        yield url
