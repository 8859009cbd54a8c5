"""Load the keys that sign stream tokens, and load them again when one of their files changes.

Owns the order of the sources: the secrets of the environment, those of their file, keys in PEM. Files that cannot be
used leave the keys in force that were read before, so that a half-written file stops nothing.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from auth.key import InvalidKeys
from auth.signing.algorithms import MissingLibrary, PublicKey, SharedSecret
from auth.signing.signing_keys import SigningKeys, read_key_paths, read_pem, read_secrets
from auth.tokens import TokenSigner
from relay.config.files import read_text_file
from relay.config.sections import AuthSettings
from relay.errors import StartError

log = structlog.get_logger()

_LOOK_S: Final = 1.0
"""Time between two looks at the files: a few calls of ``stat``."""


class TokenKeys:
    """The signer of this process, with keys from the settings. While entered, it follows changes of the files."""

    def __init__(self, settings: AuthSettings) -> None:
        """Read the keys; raise `StartError` when there is none, or one is wrong."""
        self._settings = settings
        self._seen = self._state()
        self.signer = TokenSigner(self._read())
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._seen:
            self._following = asyncio.create_task(self._follow(), name="follow-token-keys")
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    def reload(self) -> None:
        """Read all files again. When a key is wrong, log that and keep those in force."""
        try:
            keys = self._read()
        except StartError as error:
            log.error("token_keys_refused", error=str(error))
            return
        self.signer.replace(keys)
        log.info("token_keys_loaded", signing=keys.signing_id, verifying=sorted(keys.by_id))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            state = self._state()
            if state != self._seen:
                self._seen = state
                self.reload()

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what tells two versions of each file apart. A symbolic link, as of Kubernetes, is followed."""
        return tuple(map(_version, self._files()))

    def _files(self) -> Iterator[Path]:
        if self._settings.token_secrets_file is not None:
            yield self._settings.token_secrets_file
        try:
            yield from (Path(path) for _, path in read_key_paths(self._settings.token_key_files))
        except InvalidKeys:
            return  # `_read` says what is wrong

    def _read(self) -> SigningKeys:
        try:
            return SigningKeys.of(self._keys(), signing_id=self._settings.token_signing_id)
        except InvalidKeys as error:
            raise StartError(str(error)) from error
        except MissingLibrary as error:
            raise StartError(f"RELAY_AUTH_TOKEN_KEY_FILES: {error}") from error

    def _keys(self) -> Iterator[tuple[str, SharedSecret | PublicKey]]:
        settings = self._settings
        secrets = settings.token_secrets.get_secret_value()
        if not secrets and settings.token_secrets_file is None and not settings.token_key_files.strip():
            raise StartError(
                "RELAY_AUTH_TOKEN_SECRETS is not set; all relays need the same; make one with: stream-relay key secret"
            )
        if secrets:
            yield from read_secrets(secrets)
        if settings.token_secrets_file is not None:
            yield from read_secrets(read_text_file(settings.token_secrets_file, "RELAY_AUTH_TOKEN_SECRETS_FILE"))
        for name, path in read_key_paths(settings.token_key_files):
            yield name, read_pem(name, read_text_file(Path(path), "RELAY_AUTH_TOKEN_KEY_FILES").encode())


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
