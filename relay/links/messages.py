"""The form of client messages on an open link. What they do is in `relay.links.session`."""

from typing import Literal

import msgspec

Action = Literal["subscribe", "unsubscribe", "ping"]


class ClientMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a client."""

    action: Action
    games: list[str] = []
    after: str | None = None
    corrections: bool | None = None
    """Of ``subscribe``: whether corrections of these games come, too; None: if the link was opened with them."""
