"""Fetch and keep the public keys of an identity provider.

Owns when they are fetched: at start, when they are older than their maximum age, and when a JWT names an unknown one.
One fetch runs at a time, and seldom, so that no client can cause many. While the provider cannot be reached, the last
keys are used for a stated time. Redirects are not followed, and no more than `_MOST_BYTES` is read.
"""

import asyncio
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiohttp
import structlog

from auth.identity.key_set import KeySet, MalformedKeySet
from auth.signing.algorithms import MissingLibrary, Verifier, check_library
from relay.config.identity_settings import IdentitySettings
from relay.errors import IdentityUnavailable, StartError

log = structlog.get_logger()

_MOST_BYTES: Final = 256 << 10
_LEAST_AGE_S: Final = 10.0
_MAX_AGE: Final = re.compile(r"\bmax-age=(\d{1,9})\b", re.IGNORECASE)


class ProviderKeys:
    """The keys of one provider. Entered once per process with ``async with``, within the event loop."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._algorithms = settings.rules().algorithms
        self._keys: KeySet | None = None
        self._fetched_at = self._asked_at = -1e9  # loop time
        self._max_age_s = settings.keys_max_age_s
        self._fetching: asyncio.Task[None] | None = None
        self._failed = False
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "stream-relay"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._start_fetch()  # so that the log says at once when the address is wrong
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        if self._session is not None:
            await self._session.close()

    async def find(self, name: str | None, algorithm: str) -> Sequence[Verifier]:
        """Return the keys that a JWT's header may mean; none when the provider has no such key.

        Raises:
            IdentityUnavailable: The provider cannot be reached, and there are no keys that may still be used.
        """
        if self._age_s() > self._max_age_s:
            await self._fetch()
        keys = self._usable()
        found = keys.find(name, algorithm)
        if not found and await self._fetch():  # it may have a new key
            found = self._usable().find(name, algorithm)
        return found

    def _usable(self) -> KeySet:
        if self._keys is None or self._age_s() > self._max_age_s + self._settings.keys_stale_s:
            raise IdentityUnavailable
        return self._keys

    def _age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._fetched_at

    async def _fetch(self) -> bool:
        """Wait for the fetch that runs, or start one; return whether keys were fetched. Seldom: else return False."""
        before = self._fetched_at
        if self._fetching is None and not self._start_fetch():
            return False
        if self._fetching is not None:
            await asyncio.wait([self._fetching])  # a client that leaves does not cancel it
        return self._fetched_at != before

    def _start_fetch(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at < self._settings.keys_again_s:
            return False
        self._asked_at = now
        self._fetching = asyncio.create_task(self._ask(), name="fetch-identity-keys")
        return True

    async def _ask(self) -> None:
        try:
            keys, max_age_s = await self._get()
        except (aiohttp.ClientError, TimeoutError, OSError, MalformedKeySet) as error:
            self._failed = True
            log.warning(
                "identity_keys_unavailable", url=self._settings.jwks_url, error=str(error) or type(error).__name__
            )
        else:
            if self._failed or self._keys is None:
                log.info("identity_keys_fetched", url=self._settings.jwks_url, keys=len(keys))
            self._keys, self._max_age_s, self._failed = keys, max_age_s, False
            self._fetched_at = asyncio.get_running_loop().time()
        finally:
            self._fetching = None

    async def _get(self) -> tuple[KeySet, float]:
        if self._session is None:
            raise RuntimeError("ProviderKeys is used outside of its block")
        async with self._session.get(self._settings.jwks_url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise MalformedKeySet(f"the answer has status {answer.status}; it must be 200, without a redirect")
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise MalformedKeySet(f"the answer has more than {_MOST_BYTES} bytes")
            given = _MAX_AGE.search(answer.headers.get("Cache-Control", ""))
        max_age_s = self._settings.keys_max_age_s
        if given is not None:
            max_age_s = min(max_age_s, max(_LEAST_AGE_S, float(given[1])))
        return KeySet.read(bytes(body), self._algorithms), max_age_s


def provider_keys(settings: IdentitySettings) -> ProviderKeys | None:
    """Return the keys of the provider that is set, None when none is; raise `StartError` without the library."""
    if not settings.is_set:
        return None
    try:
        check_library()
    except MissingLibrary as error:
        raise StartError(f"RELAY_IDENTITY_JWKS_URL: {error}") from error
    return ProviderKeys(settings)
