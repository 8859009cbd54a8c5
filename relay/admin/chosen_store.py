"""The key store that the settings choose, if it can be edited."""

from auth.stores.key_store import EditableKeyStore
from auth.stores.nats_keys import NatsKeys
from relay.config.settings import Settings


def editable_store(settings: Settings) -> EditableKeyStore:
    """Return the store; raise `ReadOnlyStore` when it is edited by hand."""
    return NatsKeys(settings.nats)
