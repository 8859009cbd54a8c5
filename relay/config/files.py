"""The files and secrets that settings name: keys, token secrets, games. Read once at start."""

from pathlib import Path

from auth.keys import InvalidKeys, KeyStore
from auth.tokens import TokenSigner
from relay.config.sections import AuthSettings
from relay.errors import StartError
from rounds import Catalogue, InvalidCatalogue


def load_credentials(settings: AuthSettings) -> tuple[KeyStore, TokenSigner]:
    """Read the keys and token secrets; raise `StartError` when there are none or they are wrong."""
    file_text = "" if settings.keys_file is None else _read(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    try:
        keys = KeyStore.load(text=settings.keys.get_secret_value(), file_text=file_text)
        if not len(keys):
            raise StartError(
                "no API keys: set RELAY_AUTH_KEYS or RELAY_AUTH_KEYS_FILE; make one with: stream-relay key new"
            )
        secrets = settings.token_secrets.get_secret_value()
        if not secrets:
            raise StartError(
                "RELAY_AUTH_TOKEN_SECRETS is not set; all relays need the same; make one with: stream-relay key secret"
            )
        return keys, TokenSigner.parse(secrets)
    except InvalidKeys as error:
        raise StartError(str(error)) from error


def load_catalogue(games_file: Path | None) -> Catalogue:
    """Read the games; raise `StartError` when the operator's file is wrong."""
    try:
        return Catalogue.load(None if games_file is None else _read(games_file, "RELAY_GAMES_FILE"))
    except InvalidCatalogue as error:
        raise StartError(f"{games_file}: {error}") from error


def check_games(keys: KeyStore, catalogue: Catalogue) -> None:
    """Refuse a key for a game that there is not: a misspelt one would open nothing, and nobody would be told."""
    for key in keys.keys():  # noqa: SIM118 - a store is no mapping
        if unknown := sorted((key.games or frozenset()) - catalogue.slugs):
            raise StartError(
                f"key {key.id!r}: games holds {unknown[0]!r}, which is not in the catalogue; "
                f"known games: {', '.join(sorted(catalogue.slugs))}"
            )


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{setting}={str(path)!r} cannot be read: {error}") from error
