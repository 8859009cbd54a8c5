"""The answer with a stream token. Pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

NOT_STORED: Final = {"Cache-Control": "no-store"}


def token_json(token: str, expires_at: str, games: Iterable[str] | None = None) -> bytes:
    """Return the body; `games`: those that the token was narrowed to."""
    answer = {"token": token, "expires_at": expires_at}
    if games is not None:
        answer["games"] = ",".join(sorted(games))
    return msgspec.json.encode(answer)  # strings only: given clients decode this into a map of strings
