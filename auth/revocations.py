"""Stream tokens and subjects that are refused although their key is valid. Pure."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Revocation:
    """A single stream token, or all of one subject's, is refused until a time."""

    what: Literal["token", "subject"]
    value: str
    """The token's ``jti``, or the subject."""
    until: float
    """Unix seconds after which it can be forgotten, since no token that it refuses is valid any more."""
    issued_before: float | None = None
    """Of a subject: tokens issued at or after this time (Unix seconds) are accepted; None: none are."""
