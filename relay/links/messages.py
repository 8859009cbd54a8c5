"""What a client may say on an open link."""

from typing import Literal

import msgspec

Action = Literal["subscribe", "unsubscribe", "ping"]


class ClientMessage(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say on an open link."""

    action: Action
    games: list[str] = []
    after: str | None = None
