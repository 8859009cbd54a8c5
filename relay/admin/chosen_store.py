"""The key store that the settings choose, for those who change keys."""

from typing import Self

from auth.key import Key
from auth.key_forms import read_keys
from auth.revocations import Revocation
from auth.stores.key_store import Contents, EditableKeyStore, StoreReceiver
from auth.stores.nats_keys import NatsKeys
from auth.stores.postgres_keys import PostgresKeys
from relay.admin.admin_errors import ReadOnlyStore
from relay.config.files import read_text_file
from relay.config.sections import AuthSettings
from relay.config.settings import Settings


class KeysByHand:
    """The keys of the environment and of the keys file: they can be looked at, and every change is refused."""

    def __init__(self, settings: AuthSettings) -> None:
        self.name: str = settings.chosen_store
        self._settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def load(self) -> Contents:
        """Return all keys; raise `InvalidKeys` or `StartError` when they cannot be read."""
        return Contents(tuple(keys_by_hand(self._settings)))

    async def follow(self, receiver: StoreReceiver) -> None:
        """Give `receiver` the contents once."""
        receiver.replace(await self.load())

    async def read(self, key_id: str) -> tuple[Key, int] | None:
        """Return a key; its revision is always 1."""
        return next(((key, 1) for key in keys_by_hand(self._settings) if key.id == key_id), None)

    async def write(self, key: Key, *, revision: int) -> int:
        raise ReadOnlyStore(self.name)

    async def delete(self, key_id: str, *, revision: int) -> None:
        raise ReadOnlyStore(self.name)

    async def revoke(self, revocation: Revocation) -> None:
        raise ReadOnlyStore(self.name)


def keys_by_hand(settings: AuthSettings) -> list[Key]:
    """Read the keys of the environment and of the keys file.

    Raises:
        InvalidKeys: An entry is wrong.
        StartError: The file cannot be read.
    """
    file_text = "" if settings.keys_file is None else read_text_file(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    return read_keys(text=settings.keys.get_secret_value(), file_text=file_text)


def chosen_store(settings: Settings) -> EditableKeyStore:
    """Return the store that relays with these settings read."""
    auth = settings.auth
    if auth.chosen_store == "postgres" and auth.dsn is not None:
        return PostgresKeys(auth.dsn.get_secret_value())
    if auth.chosen_store == "nats":
        return NatsKeys(settings.nats, bucket=auth.bucket)
    return KeysByHand(auth)


def store_to_import_into(settings: Settings) -> EditableKeyStore:
    """Return the store that keys of the environment and of files are taken over to.

    That is the store of NATS unless another one was chosen: with keys in the environment, ``auto`` means these alone.
    """
    if settings.auth.store == "auto":
        return NatsKeys(settings.nats, bucket=settings.auth.bucket)
    return chosen_store(settings)
