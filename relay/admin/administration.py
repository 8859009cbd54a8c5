"""Open all that administration works with: the key store, the audit log, admin credentials and usage.

Owns the choice of the store that can be edited, and what a lost connection or a missing permission means to a user.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from auth.stores.key_store import EditableKeyStore
from relay.admin.admin_credentials import AdminCredentials
from relay.admin.admin_errors import NotPermitted, StoreAway
from relay.admin.key_admin import KeyAdmin
from relay.audit.audit_entry import Actor
from relay.audit.audit_trail import NatsAuditTrail
from relay.config.catalogue import load_catalogue
from relay.config.settings import Settings
from relay.usage.usage_reader import UsageReader
from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogDenied, LogUnavailable
from rounds import Catalogue


@dataclass(frozen=True, slots=True)
class Administration:
    """The parts of administration, on one connection to NATS."""

    store: EditableKeyStore
    audit: NatsAuditTrail
    admins: AdminCredentials
    usage: UsageReader
    catalogue: Catalogue
    connection: Connection
    settings: Settings

    def keys(self, actor: Actor) -> KeyAdmin:
        """Return the verbs in the name of `actor`."""
        return KeyAdmin(self.store, self.audit, actor, self.catalogue)

    async def make_streams(self) -> None:
        """Make all streams of administration that are missing, so that relays need no right to make any.

        Raises:
            LogError: One cannot be made.
        """
        await self.audit.make_streams()
        await self.usage.make_stream()

    def denied(self, error: Exception) -> Exception:
        """Return the error to show for `error`: why NATS did not answer, where it has said so."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, LogDenied):
                return NotPermitted(str(cause))
            cause = cause.__cause__
        return error


@asynccontextmanager
async def administering(settings: Settings, store: EditableKeyStore) -> AsyncIterator[Administration]:
    """Hold the parts of administration for as long as the block lasts.

    Raises:
        StoreAway: NATS cannot be reached.
        NotPermitted: Something in the block failed because the user of NATS may not do it.
        LogRefused: NATS does not accept the credentials.
        StartError: The catalogue of games is wrong.
    """
    nats = settings.nats
    catalogue = load_catalogue(settings.games_file)
    try:
        async with connect(nats, name="admin") as connection, store:
            audit = NatsAuditTrail(connection, settings.audit, replicas=nats.replicas, create=nats.create)
            admins = AdminCredentials(connection, audit, replicas=nats.replicas, create=nats.create)
            usage = UsageReader(connection, settings.usage, replicas=nats.replicas, create=nats.create)
            parts = Administration(store, audit, admins, usage, catalogue, connection, settings)
            try:
                yield parts
            except Exception as error:
                shown = parts.denied(error)
                if shown is error:
                    raise
                raise shown from error
    except LogUnavailable as error:
        raise StoreAway(str(error)) from error
