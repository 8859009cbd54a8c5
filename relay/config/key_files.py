"""Load API keys and token secrets from the settings, and check that keys name known games. Done once at start."""

from auth.key import InvalidKeys
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.tokens import TokenSigner
from relay.config.files import read_text_file
from relay.config.sections import AuthSettings
from relay.errors import StartError
from rounds import Catalogue


def load_credentials(settings: AuthSettings) -> tuple[KeyRing, TokenSigner]:
    """Load the keys and token secrets; raise `StartError` when either is missing or wrong."""
    file_text = "" if settings.keys_file is None else read_text_file(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    try:
        keys = KeyRing(read_keys(text=settings.keys.get_secret_value(), file_text=file_text))
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


def check_games(keys: KeyRing, catalogue: Catalogue) -> None:
    """Raise `StartError` for a key whose games are not all in the catalogue: a misspelt game would match no rounds."""
    for key in keys:
        if unknown := sorted((key.games or frozenset()) - catalogue.slugs):
            raise StartError(
                f"key {key.id!r}: games holds {unknown[0]!r}, which is not in the catalogue; "
                f"known games: {', '.join(sorted(catalogue.slugs))}"
            )
