"""What an accepted credential must also fulfil: its store is reached, its address and kind are allowed here.

Owns the rules that depend on this relay rather than on the credential. Does not know how credentials are found or
verified.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Final

import structlog

from auth.credentials import Presented
from auth.grants import Grant
from auth.key_ring import KeyRing
from auth.stores.key_layers import KeyLayer, KeyLayers
from relay.admission.caller import Caller
from relay.config.sections import AuthSettings
from relay.errors import KeysUnavailable, NotAllowed, NotAllowedAddress, PrivateKeyInBrowser
from relay.live.ending import ReconnectDelays

log = structlog.get_logger()

FROM_BROWSERS: Final = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Dest")
"""Headers that pages cannot set or omit. Not ``Sec-Fetch-Mode``, which the fetch of Node.js sends too."""
_AGAIN_S: Final = 600.0
_MOST_NOTED: Final = 1000


class KeyPolicy:
    """The rules of one relay."""

    def __init__(
        self,
        keys: KeyRing,
        delays: ReconnectDelays,
        *,
        settings: AuthSettings | None = None,
        stores: KeyLayers | None = None,
    ) -> None:
        """Make the rules.

        Args:
            keys: The keys in force.
            delays: Draws when clients may come back that cannot be judged now.
            settings: Whether test keys, and private keys in browsers, are refused; the defaults refuse neither.
            stores: Where keys come from; None: they never change.
        """
        settings = AuthSettings() if settings is None else settings
        self._keys = keys
        self._delays = delays
        self._stores = stores
        self._refuses_test_keys = settings.test_keys == "refuse"
        self._refuses_in_browsers = settings.private_in_browsers == "refuse"
        self._noted: OrderedDict[str, float] = OrderedDict()

    @property
    def obstacle(self) -> str | None:
        """Why credentials cannot be judged now, for operators; None when they can."""
        blocking = None if self._stores is None else self._stores.blocked_by()
        return None if blocking is None else blocking.sentence

    @property
    def known_keys(self) -> int:
        """How many keys are known."""
        return len(self._keys)

    @property
    def layers(self) -> Iterable[KeyLayer]:
        """The stores that keys come from."""
        return () if self._stores is None else self._stores

    def check_judged(self, key_id: str | None) -> None:
        """Check that the store of a key is reached; None: of a credential that was not accepted.

        Raises:
            KeysUnavailable: It is not, so the key may be disabled or narrowed by now, or may exist.
        """
        if self._stores is not None and self._stores.blocked_by(key_id) is not None:
            raise KeysUnavailable(self._delays.after_refusal())

    def check(self, grant: Grant, caller: Caller) -> None:
        """Check an accepted credential.

        Raises:
            KeysUnavailable: See `check_judged`.
            NotAllowedAddress: The key is for other addresses.
            NotAllowed: It is a key for tests, which this relay refuses.
        """
        key = self._keys.get(grant.key_id)
        if key is None:  # of no key: an identity of another issuer
            return
        self.check_judged(key.id)
        if not key.allows_address(caller.address):
            raise NotAllowedAddress
        if key.test and self._refuses_test_keys:
            raise NotAllowed(
                "keys for tests are not accepted by this relay; use a key that begins with sk_live_ or pk_live_"
            )

    def check_browser(self, presented: Presented, grant: Grant, headers: Mapping[str, str]) -> bool:
        """Return whether a browser sends a private key, which everybody who opens its page can read. Log it.

        A token of a private key is no secret that lasts, so it is no case of that.

        Raises:
            PrivateKeyInBrowser: It does, and the settings refuse that.
        """
        if grant.kind != "private" or presented.kind != "key" or not any(name in headers for name in FROM_BROWSERS):
            return False
        self._note(grant.key_id, headers.get("Origin"))
        if self._refuses_in_browsers:
            raise PrivateKeyInBrowser
        return True

    def _note(self, key_id: str, origin: str | None) -> None:
        """Log one line for each key and ten minutes."""
        now = monotonic()
        if now - self._noted.get(key_id, float("-inf")) < _AGAIN_S:
            return
        self._noted[key_id] = now
        self._noted.move_to_end(key_id)
        if len(self._noted) > _MOST_NOTED:
            self._noted.popitem(last=False)
        log.warning("private_key_in_browser", key=key_id, origin=None if origin is None else origin[:100])
