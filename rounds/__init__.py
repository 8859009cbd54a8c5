"""The domain: rounds, games, filters, cursors, and the names they have in NATS.

Pure values and pure functions; no I/O beyond reading the bundled catalogue, and nothing of ours is imported here.
"""

from rounds.cursor import Cursor, InvalidCursor
from rounds.filter import Filter, InvalidFilter
from rounds.games import Catalogue, Game, InvalidCatalogue, UnknownGame, UnknownType
from rounds.round import InvalidRound, Round, stringify_extras
from rounds.subjects import InvalidSlug, check_slug, dedup_id, live_subject, log_subject

__all__ = [
    "Catalogue",
    "Cursor",
    "Filter",
    "Game",
    "InvalidCatalogue",
    "InvalidCursor",
    "InvalidFilter",
    "InvalidRound",
    "InvalidSlug",
    "Round",
    "UnknownGame",
    "UnknownType",
    "check_slug",
    "dedup_id",
    "live_subject",
    "log_subject",
    "stringify_extras",
]
