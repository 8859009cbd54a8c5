"""Administration and reports with the NATS users of infra/: each does all of its work, and nothing is denied."""

import time
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from auth.stores.nats_keys import NatsKeys
from relay.admin.admin_errors import NotPermitted
from relay.admin.administration import administering
from relay.audit.audit_entry import Actor
from relay.config.settings import Settings
from relay.usage.usage_form import total
from roundlog.client.connection import connect
from roundlog.stream import open_log
from tests.resume.conftest import running
from tests.security.accounts import ACCOUNTS, log_of, server_of

pytestmark = pytest.mark.service

ACTOR = Actor("os_user", "tester@here")


async def test_admin_makes_all_streams_and_relays_report_into_them(tmp_path: Path) -> None:
    """On a new server: every verb as `admin`; then a relay as `relay`, which may create nothing, reports."""
    server = server_of(tmp_path, text=ACCOUNTS)
    await server.start()
    try:
        with capture_logs() as logs:
            async with connect(log_of(server, "ingest"), name="ingest") as ingest:
                await open_log(ingest, log_of(server, "ingest"))
            settings = Settings(nats=log_of(server, "admin"))
            async with administering(settings, NatsKeys(settings.nats)) as parts:
                await parts.make_streams()
                _, secret = await parts.admins.create(ACTOR, "ops")
                assert parts.admins.find(secret, await parts.admins.all()) is not None
                keys = parts.keys(ACTOR)
                await keys.create({"id": "a"})
                await keys.change("a", {"name": "A"})
                await keys.rotate("a")
                await keys.revoke("subject", "u")
                assert [key.id for key in await keys.all()] == ["a"]
                await keys.delete("a")

                async with (
                    running(log_of(server, "relay", create=False)) as url,
                    aiohttp.ClientSession() as http,
                ):
                    for key, status in ((DEMO_KEY, 200), ("sk_live_" + "1" * 64, 401)):
                        async with http.get(f"{url}/api/games", headers={"X-API-Key": key}) as answer:
                            assert answer.status == status
                used = total((await parts.usage.since(time.time() - 3600))["demo"])
                entries = await parts.audit.newest(20, refused=True)
    finally:
        await server.kill()

    assert used.requests == 1
    assert [entry.action for entry in entries] == [
        "admin.create",
        "key.create",
        "key.set",
        "key.rotate",
        "subject.revoke",
        "key.delete",
        "credential.refused",
    ]
    faults = ("nats_error", "nats_denied", "usage_not_reported", "refused_credentials_not_audited")
    assert [entry for entry in logs if entry["event"] in faults] == []


async def test_relay_user_cannot_administer(tmp_path: Path) -> None:
    """It is refused with the permission that it lacks; nothing is stored."""
    server = server_of(tmp_path, text=ACCOUNTS)
    await server.start()
    try:
        settings = Settings(nats=log_of(server, "relay", create=False))
        with pytest.raises(NotPermitted, match="use the NATS user for administration"):
            async with administering(settings, NatsKeys(settings.nats)) as parts:
                await parts.admins.create(ACTOR, "mine")
    finally:
        await server.kill()
