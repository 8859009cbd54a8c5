"""The options of the backend ``file``: their meanings, defaults and error sentences. No I/O."""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from backends.contract import InvalidOptions
from backends.file.recording.formats import FORMATS, Format
from rounds import Catalogue, UnknownGame
from rounds.times import parse_moment

MAX_SPEED: Final = math.inf
"""``speed=max``: no pacing."""


def _speed(value: object) -> object:
    return MAX_SPEED if isinstance(value, str) and value.strip().lower() == "max" else value


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = parse_moment(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("not a time with a zone")
    return value


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _format(value: object) -> object:
    if value is not None and value not in FORMATS:
        raise ValueError("not a format")
    return None if value is None else FORMATS[str(value)]


_Moment = Annotated[datetime, BeforeValidator(_moment)]


class FileOptions(BaseModel):
    """The checked options, from strings (the environment) or typed values (TOML). Built by `parse`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    path: Annotated[str, Field(min_length=1)]
    """A recording, a folder of recordings, or ``-`` for standard input."""
    format: Annotated[Format | None, BeforeValidator(_format)] = None
    """The format of the input, where its name does not show it."""
    speed: Annotated[float, BeforeValidator(_speed), Field(gt=0)] = 1.0
    """Multiple of the original cadence; infinite for ``max``."""
    from_: Annotated[_Moment | None, Field(alias="from")] = None
    """Rounds committed before this time are skipped."""
    to: _Moment | None = None
    """Rounds committed at this time or later are skipped."""
    games: Annotated[frozenset[str], BeforeValidator(_names)] = frozenset()
    """Slugs of the games to play; empty: all."""
    loop: bool = False
    """Start again at the end, without limit; each pass has new round ids and times."""
    shift_to_now: bool = False
    """Set the time of each round to the time at which it is played."""
    max_gap_s: Annotated[float, Field(gt=0)] = math.inf
    """The longest pause between two rounds, in seconds of real time; longer pauses are cut to this."""
    state_file: Path | None = None
    """Stores the confirmed offset, so that the next run resumes there."""
    rejects_file: Path | None = None
    """Stores the lines that are not rounds. None: the first such line stops the run."""
    max_line_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    """A longer line is malformed. The default is the maximum size of a message with NATS's own defaults."""

    @classmethod
    def parse(cls, options: Mapping[str, object], catalogue: Catalogue) -> Self:
        """Check the options; nothing is opened.

        Raises:
            InvalidOptions: One line for each option that is unknown, missing or wrong.
        """
        try:
            parsed = cls.model_validate(options)
        except ValidationError as error:
            raise InvalidOptions("\n".join(_sentence(fault) for fault in error.errors())) from error
        try:
            for slug in sorted(parsed.games):
                catalogue.game(slug)
        except UnknownGame as error:
            raise InvalidOptions(f"option games: {error}") from error
        return parsed

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.from_ and self.to and self.from_ >= self.to:
            raise ValueError(f"option from ({self.from_.isoformat()}) must be earlier than to ({self.to.isoformat()})")
        if self.is_stdin and self.loop:
            raise ValueError("option loop cannot be used with path '-': standard input is read once")
        if self.is_stdin and self.state_file:
            raise ValueError("option state_file cannot be used with path '-': standard input is read once")
        return self

    @property
    def is_stdin(self) -> bool:
        return self.path == "-"

    @property
    def is_paced(self) -> bool:
        return self.speed != MAX_SPEED

    @property
    def span_ms(self) -> tuple[float, float]:
        """``from`` and ``to`` as Unix milliseconds; infinite where not given."""
        low = -math.inf if self.from_ is None else self.from_.timestamp() * 1000
        return low, math.inf if self.to is None else self.to.timestamp() * 1000


_ALLOWED: Final[Mapping[str, str]] = {
    "path": "a file, a folder, or - for standard input",
    "format": f"one of {', '.join(FORMATS)}",
    "from": "a time with its zone, such as 2026-01-18T10:00:30Z",
    "to": "a time with its zone, such as 2026-01-18T10:00:30Z",
    "speed": "a number above 0, or max",
    "games": "slugs separated by commas, such as crash,double",
    "loop": "true or false",
    "shift_to_now": "true or false",
    "max_gap_s": "a number of seconds above 0",
    "state_file": "the path of a file",
    "rejects_file": "the path of a file",
    "max_line_bytes": "a whole number from 1024 to 67108864",
}


def _sentence(fault: Any) -> str:
    """Write one line with the option, its value and what is allowed."""
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(sorted(field.alias or key for key, field in FileOptions.model_fields.items()))
        return f"option {name[:64]!r} is unknown; there are: {known}"
    if fault["type"] == "missing":
        return f"option path is missing (RELAY_BACKEND_PATH); it takes {_ALLOWED['path']}"
    return f"option {name}={str(fault['input'])[:80]!r} is not allowed; it takes {_ALLOWED[name]}"
