"""Which relay a client asks for what, and how its connections end.

Owns what the readers of all protocols share. Knows no protocol.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

OPEN: Final = b'{"event":"open"}'
"""An event that readers yield when the relay has accepted the stream."""


class Refused(Exception):
    """The relay refused the request, and a retry would not help; ``str()`` is the relay's sentence."""


class Unreachable(ConnectionError):
    """No relay answers at the address; `question` asks the user whether one is running there."""

    def __init__(self, address: str, question: str) -> None:
        super().__init__(f"nothing answers at {address}")
        self.question = question


class Interrupted(ConnectionError):
    """The relay ended the stream; it may have given the cursor to resume from and the delay before that."""

    def __init__(self, sentence: str, *, cursor: str | None, wait_s: float | None) -> None:
        super().__init__(sentence)
        self.cursor, self.wait_s = cursor, wait_s


class Ended(Exception):
    """The stream has reached the requested end."""


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a relay, the key, and the requested game."""

    url: str  # without a slash at the end
    key: str
    game: str | None  # None: all games

    def path(self, prefix: str) -> str:
        return f"{self.url}{prefix}" + ("" if self.game is None else f"/{quote(self.game, safe='')}")

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}
