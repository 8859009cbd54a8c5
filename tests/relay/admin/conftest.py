"""A running admin API on a real NATS, with an admin credential."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

from auth.stores.nats_keys import NatsKeys
from relay.admin.administration import Administration, administering
from relay.admin.api.serve_admin import serving_admin
from relay.audit.audit_entry import Actor
from relay.config.settings import Settings
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer

TESTER = Actor("os_user", "tester@here")


class Answer(NamedTuple):
    """An answer that was read."""

    status: int
    headers: Any
    body: Any


class AdminClient:
    """Calls the admin API."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str | None) -> None:
        self._session = session
        self.url = url
        self.secret = secret

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request with the credential; ``_`` in names of headers is ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret is not None:
            sent = {"Authorization": f"Bearer {self.secret}"} | sent
        given = {} if body is None else {"data": body} if isinstance(body, str | bytes) else {"json": body}
        async with self._session.request(method, self.url + path, headers=sent, **given) as response:
            is_json = response.content_type == "application/json" and method != "HEAD"
            return Answer(response.status, response.headers, await response.json() if is_json else None)


StartAdmin = Callable[..., Any]


def admin_settings(url: str, **sections: Any) -> Settings:
    sections.setdefault("admin", {"port": 0})
    return Settings(nats=LogSettings(url=url, connect_timeout_s=2), **sections)


@pytest.fixture
async def parts(nats: NatsServer) -> AsyncIterator[Administration]:
    """The parts of administration, as a command has them."""
    settings = admin_settings(nats.url)
    async with administering(settings, NatsKeys(settings.nats)) as parts:
        yield parts


@pytest.fixture
def start_admin(nats: NatsServer) -> StartAdmin:
    """Start the admin API: ``async with start_admin(admin={...}) as url``."""

    @asynccontextmanager
    async def start(**sections: Any) -> AsyncIterator[str]:
        settings = admin_settings(nats.url, **sections)
        async with serving_admin(settings, NatsKeys(settings.nats)) as url:
            yield url

    return start


@pytest.fixture
async def admin(
    parts: Administration, start_admin: StartAdmin, client: aiohttp.ClientSession
) -> AsyncIterator[AdminClient]:
    """A client of a running admin API, with a credential."""
    _, secret = await parts.admins.create(TESTER, "ops")
    async with start_admin() as url:
        yield AdminClient(client, url, secret)


Call = Callable[..., Awaitable[Answer]]
