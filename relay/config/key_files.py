"""Load API keys and token secrets from the settings, and check that keys name known games. Done once at start."""

from auth.key import InvalidKeys
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.tokens import TokenSigner
from relay.config.files import read_text_file
from relay.config.key_stores import types_of, unknown_names
from relay.config.sections import AuthSettings
from relay.errors import StartError
from rounds import Catalogue


def load_credentials(settings: AuthSettings) -> tuple[KeyRing, TokenSigner]:
    """Load the keys and token secrets; raise `StartError` when either is missing or wrong."""
    file_text = "" if settings.keys_file is None else read_text_file(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    try:
        keys = KeyRing(read_keys(text=settings.keys.get_secret_value(), file_text=file_text))
        secrets = settings.token_secrets.get_secret_value()
        nothing_set = settings.store == "auto" and not secrets
        if not len(keys) and (nothing_set or settings.chosen_store in ("env", "file")):
            raise StartError(
                "no API keys: set RELAY_AUTH_KEYS or RELAY_AUTH_KEYS_FILE; make one with: stream-relay key new; "
                "or set RELAY_AUTH_STORE=nats to keep keys in NATS"
            )
        if not secrets:
            raise StartError(
                "RELAY_AUTH_TOKEN_SECRETS is not set; all relays need the same; make one with: stream-relay key secret"
            )
        return keys, TokenSigner.parse(secrets)
    except InvalidKeys as error:
        raise StartError(str(error)) from error


def check_games(keys: KeyRing, catalogue: Catalogue) -> None:
    """Raise `StartError` for a key whose games or types are not all in the catalogue: misspelt, they match no rounds.

    Keys that come later get the games of their types.
    """
    for key in keys:
        if fault := unknown_names(key, catalogue):
            raise StartError(fault)
    keys.know_types(types_of(catalogue))
