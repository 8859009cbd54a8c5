"""Read stored entries one by one, and remember what they hold, so that a store that is read again costs little."""

from typing import Final

from auth.key import InvalidKeys, Key
from auth.revocations import Revocation
from auth.stores.stored_json import key_of_json, revocation_of_json

_Held = Key | Revocation | str


class StoredEntries:
    """The entries of one store: keys, revocations, and a sentence for each that cannot be read."""

    def __init__(self, where: str) -> None:
        """`where` names the store, for errors."""
        self._where: Final = where
        self._known: dict[str, tuple[bytes | str, _Held]] = {}

    def key(self, key_id: str, data: bytes | str) -> Key | str:
        """Return a key; a sentence when the entry cannot be read. Equal data gives the same object."""
        known = self._known.get(key_id)
        if known is not None and known[0] == data and isinstance(known[1], Key | str):
            return known[1]
        found: Key | str
        try:
            found = key_of_json(self._where, key_id, data)
        except InvalidKeys as error:
            found = str(error)
        self._known[key_id] = (data, found)
        return found

    def revocation(self, name: str, data: bytes | str) -> Revocation | str:
        """Return a revocation, likewise; `name` is that of its entry, which is no id of a key."""
        known = self._known.get(name)
        if known is not None and known[0] == data and isinstance(known[1], Revocation | str):
            return known[1]
        found: Revocation | str
        try:
            found = revocation_of_json(self._where, data)
        except InvalidKeys as error:
            found = str(error)
        self._known[name] = (data, found)
        return found

    def keep(self, names: set[str]) -> None:
        """Forget all other entries."""
        self._known = {name: held for name, held in self._known.items() if name in names}
