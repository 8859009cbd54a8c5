"""Cursors: how far a client has come in the log. The only code that writes or reads their text form."""

import re
from dataclasses import dataclass
from typing import Final, Self

MAX_SEQUENCE: Final = 2**64 - 1
"""JetStream sequences are unsigned 64-bit."""

# Letters, digits and '-' only: any other character in Last-Event-ID makes browsers preflight every reconnect.
_CURSOR: Final = re.compile(r"\A([a-z0-9]{1,16})-(0|[1-9][0-9]{0,19})\Z", re.ASCII)
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class InvalidCursor(ValueError):
    """The text is not a cursor. A client that sends it gets 400."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 64 else f"{self.text[:60]}..."
        return f"cursor {shown!r} is malformed; send back a cursor exactly as a round carried it, such as 'k3f9a2-1042'"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a client has come in the log. Clients store it and send it back; they never compute with it."""

    epoch: str  # changes when the log has been lost or rebuilt
    sequence: int  # grows with each round of any game; comparable only within one epoch

    def __str__(self) -> str:
        return cursor_text(self.epoch, self.sequence)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back ``str(cursor)``; raise `InvalidCursor` for anything else."""
        match = _CURSOR.match(text)
        if match is None or (sequence := int(match[2])) > MAX_SEQUENCE:
            raise InvalidCursor(text)
        return cls(match[1], sequence)


def cursor_text(epoch: str, sequence: int) -> str:
    """Return ``str(Cursor(epoch, sequence))`` without building the value: one is written for every round."""
    return cursor_prefix(epoch) + str(sequence)


def cursor_prefix(epoch: str) -> str:
    """Return what every cursor of an epoch begins with; the sequence follows in decimal."""
    return f"{epoch}-"


def epoch_of(created_ms: int) -> str:
    """Name the log that was created at `created_ms` (Unix milliseconds): base 36, 8 characters until the year 2059."""
    digits = []
    while created_ms > 0:
        created_ms, digit = divmod(created_ms, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)) or "0"
