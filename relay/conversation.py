"""What a WebSocket client may say on an open link, and what it is answered.

Owns the client messages of the contract: ``subscribe``, ``unsubscribe``, ``ping``. A client that says nothing is
sent rounds and nothing else.
"""

from typing import Final

from relay.errors import BadMessage, ClientError
from relay.hub import Hub, Wanted
from relay.link import Link
from relay.subscription import named_games
from relay.websocket import ClientMessage
from rounds import Catalogue, Filter, UnknownGame

_NOTHING: Final = Wanted(frozenset(), Filter())


class Conversation:
    """One client's side talk with the hub."""

    def __init__(self, hub: Hub, catalogue: Catalogue, allowed: frozenset[str] | None, link: Link) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._allowed = allowed
        self._link = link

    def on_message(self, message: ClientMessage) -> object:
        """Do what the client asks; return the answer.

        Raises:
            BadMessage: It asks for a game that there is not, or that its credential does not cover.
        """
        if message.action == "ping":
            return {"event": "pong"}
        try:
            games = named_games(self._catalogue, self._allowed, message.games)
        except (ClientError, UnknownGame) as error:
            raise BadMessage(str(error)) from error
        now = self._hub.wanted_by(self._link) or _NOTHING
        in_force = now.games | games if message.action == "subscribe" else now.games - games
        self._hub.add(self._link, now._replace(games=in_force))
        return {"event": "subscribed", "games": sorted(in_force)}
