"""The key store in NATS with the accounts of infra/: an admin changes keys, relays follow, and nobody else writes."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from auth.revocations import Revocation
from auth.stores.key_store import StoreUnavailable
from auth.stores.nats_keys import NatsKeys
from roundlog.client import connection
from tests.auth.stores.making import new_key
from tests.auth.stores.test_stores import Following
from tests.security.accounts import ACCOUNTS, log_of, server_of

pytestmark = pytest.mark.service


async def test_relays_follow_what_an_admin_changes_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The users of the file are allowed all that the store asks for; a relay is refused every change."""
    server = server_of(tmp_path, text=ACCOUNTS)
    await server.start()
    key = new_key("partner")
    try:
        admin = NatsKeys(log_of(server, "admin"))
        relay = NatsKeys(log_of(server, "relay", create=False))
        with capture_logs() as logs:
            revision = await admin.write(key, revision=0)
            async with Following(relay) as seen:
                await seen.until_keys(key)
                for changed in (replace(key, disabled=True), replace(key, games=frozenset({"crash"}))):
                    revision = await admin.write(changed, revision=revision)
                    await seen.until_keys(changed)
                await admin.revoke(Revocation("subject", "user-1", until=time.time() + 60))
                await seen.until(lambda: len(seen.revocations) == 1)
                await admin.delete("partner", revision=revision)
                await seen.until_keys()
        denied = [entry for entry in logs if entry["event"] in ("nats_denied", "nats_error")]

        monkeypatch.setattr(connection, "_ANSWER_S", 0.5)  # the refused request has no answer
        with pytest.raises(StoreUnavailable, match="does not let this user publish"):
            await relay.write(key, revision=1)
        assert (await admin.load()).keys == ()
    finally:
        await server.kill()

    assert denied == []
