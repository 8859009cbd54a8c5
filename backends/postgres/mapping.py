"""Turn a row of the table of rounds into a `Round`, or say why that is not possible.

Pure. Owns which values the columns may have. Takes values as PostgreSQL writes them as text, with ``DateStyle`` ISO and
``TimeZone`` UTC, so that both backends make the same round of the same row.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from backends.contract import Captured, Rejected
from rounds import Catalogue, InvalidRound, InvalidSlug, Round, UnknownGame, check_slug, stringify_extras

P = TypeVar("P")

FIELDS: Final = ("round_id", "game_slug", "game_type", "finished_at", "extras")
"""The order of the values of a `Row`."""

RAW_BYTES: Final = 64 << 10
"""Limit of the stored part of a rejected row."""

SESSION: Final = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "IntervalStyle": "postgres"}
"""The settings of a session that reads rows."""

MAX_ROUND_ID: Final = 2**63 - 1
_DIGITS: Final = 19
_TYPES_KEPT: Final = 256
_TIMESTAMP: Final = re.compile(r"\A(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00(?::?00)?)?\Z", re.ASCII)
_PLAIN_EXTRAS: Final = msgspec.json.Decoder(dict[str, str])
_ANY_EXTRAS: Final = msgspec.json.Decoder(float_hook=str)


class Row(NamedTuple):
    """One row of the table as text. None is NULL; `game_type` is None too if there is no such column."""

    round_id: str | None
    game_slug: str | None
    game_type: str | None
    finished_at: str | None
    extras: str | None


class RowMapper:
    """Turns rows into rounds, for the games of one catalogue."""

    def __init__(self, catalogue: Catalogue, table: str) -> None:
        self._catalogue = catalogue
        self._table = table
        self._types = {slug: game.type for slug, game in catalogue.games.items()}
        self._checked_types = set(self._types.values())

    def to_round(self, row: Sequence[str | None], timestamp_ms: int) -> Round:
        """Turn a row into a round.

        Args:
            row: The values, in the order of `FIELDS`.
            timestamp_ms: When the source committed the row, Unix milliseconds.

        Raises:
            InvalidRound: A value is not allowed; the text names the field, the value, and what is allowed.
        """
        round_id, game_slug, game_type, finished_at, extras = row
        own_type = self._types.get(game_slug or "")
        if own_type is None:
            raise InvalidRound(self._why_unknown(game_slug))
        if game_type is None:
            game_type = own_type
        elif game_type not in self._checked_types:
            self._check_type(game_type)
        return Round(
            _round_id(round_id), game_slug or "", game_type, _finished_at(finished_at), _extras(extras), timestamp_ms
        )

    def reject(self, row: Sequence[str | None], reason: str, offset: P) -> Rejected[P]:
        """Describe a row that cannot become a round, with the key to find it in the table."""
        values = dict(zip(FIELDS, row, strict=True))
        key = f"{self._table}:{values['game_slug']!s:.64}:{values['round_id']!s:.64}"
        return Rejected(key, reason, msgspec.json.encode(values)[:RAW_BYTES], offset)

    def _why_unknown(self, game_slug: str | None) -> str:
        if game_slug is None:
            return "game_slug is NULL; it must name a game"
        try:
            self._catalogue.game(check_slug(game_slug))
        except (InvalidSlug, UnknownGame) as error:
            return str(error)
        raise AssertionError(game_slug)

    def _check_type(self, game_type: str) -> None:
        try:
            check_slug(game_type)
        except InvalidSlug as error:
            raise InvalidRound(str(error).replace("game slug", "game type")) from None
        if len(self._checked_types) < _TYPES_KEPT:
            self._checked_types.add(game_type)


def item_of(row: Any, mapper: RowMapper, offset: P, *, has_game_type: bool) -> Captured[P] | Rejected[P]:
    """Turn a row with `FIELDS` and ``committed_ms`` into an item.

    If the server keeps no commit times, the round's timestamp is its ``finished_at``: the same at every reading.
    """
    values = [row[field] for field in FIELDS]
    committed_ms = row["committed_ms"]
    # Without a column of the game type the query reads another column in its place.
    own = values if has_game_type else [None if field == "game_type" else row[field] for field in FIELDS]
    try:
        round_ = mapper.to_round(own, committed_ms or 0)
    except InvalidRound as error:
        return mapper.reject(values, str(error), offset)
    if committed_ms is None:
        round_ = msgspec.structs.replace(round_, timestamp=max(0, int(round_.finished.timestamp() * 1000)))
    return Captured(round_, offset)


def _round_id(text: str | None) -> int:
    # isdecimal() and int() accept digits of every script; only ASCII is allowed.
    if text is not None and text.isascii() and text.isdecimal() and len(text) <= _DIGITS:
        number = int(text)
        if number <= MAX_ROUND_ID:
            return number
    shown = "NULL" if text is None else f"{text[:40]!r}"
    raise InvalidRound(f"round_id is {shown}; it must be an integer from 0 to 2^63-1")


def _finished_at(text: str | None) -> str:
    """Write a timestamp of PostgreSQL as RFC 3339 in UTC."""
    if text is None:
        raise InvalidRound("finished_at is NULL; it must be a timestamp")
    if (match := _TIMESTAMP.match(text)) is not None:
        written = f"{match[1]}T{match[2]}Z"
        # A text column may have seconds such as 99.
        if _is_timestamp(written):
            return written
    else:
        try:
            parsed = datetime.fromisoformat(text)
            if parsed.tzinfo is not None:
                return parsed.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
        except (ValueError, OverflowError):
            pass  # "infinity", years BC or after 9999, a DateStyle that is not ISO
    raise InvalidRound(f"finished_at {text[:40]!r} is not a timestamp of the years 1 to 9999 in ISO form")


def _is_timestamp(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _extras(text: str | None) -> str:
    if text is None:
        return "{}"
    try:
        _PLAIN_EXTRAS.decode(text)
    except msgspec.ValidationError:
        return _stringified(text)
    except msgspec.DecodeError as error:
        raise InvalidRound(f"extras {text[:40]!r} are not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRound("extras are nested too deeply") from error
    return text


def _stringified(text: str) -> str:
    """Rewrite JSON with values other than strings: its numbers become strings, digit for digit."""
    try:
        return stringify_extras(_ANY_EXTRAS.decode(text))
    except msgspec.DecodeError as error:
        raise InvalidRound(f"extras {text[:40]!r} are not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRound("extras are nested too deeply") from error
