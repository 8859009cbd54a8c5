"""Load API keys and token secrets from the settings, and check that keys name known games. Done once at start."""

from auth.key import InvalidKeys
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from relay.config.files import read_text_file
from relay.config.key_stores import types_of, unknown_names
from relay.config.sections import AuthSettings
from relay.config.token_keys import TokenKeys
from relay.errors import StartError
from rounds import Catalogue


def load_credentials(settings: AuthSettings) -> tuple[KeyRing, TokenKeys]:
    """Load the API keys and the keys of tokens; raise `StartError` when either is missing or wrong."""
    file_text = "" if settings.keys_file is None else read_text_file(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    try:
        keys = KeyRing(read_keys(text=settings.keys.get_secret_value(), file_text=file_text))
        signs = settings.token_secrets.get_secret_value() or settings.token_secrets_file or settings.token_key_files
        nothing_set = settings.store == "auto" and not signs
        if not len(keys) and (nothing_set or settings.chosen_store in ("env", "file")):
            raise StartError(
                "no API keys: set RELAY_AUTH_KEYS or RELAY_AUTH_KEYS_FILE; make one with: stream-relay key new; "
                "or set RELAY_AUTH_STORE=nats to keep keys in NATS"
            )
        return keys, TokenKeys(settings)
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
