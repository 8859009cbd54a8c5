"""Load the catalogue of games: the bundled one, and the operator's file over it. Read once at start."""

from pathlib import Path

from relay.config.files import read_text_file
from relay.errors import StartError
from rounds import Catalogue, InvalidCatalogue


def load_catalogue(games_file: Path | None) -> Catalogue:
    """Load the games; raise `StartError` when the operator's file is wrong."""
    try:
        return Catalogue.load(None if games_file is None else read_text_file(games_file, "RELAY_GAMES_FILE"))
    except InvalidCatalogue as error:
        raise StartError(f"{games_file}: {error}") from error
