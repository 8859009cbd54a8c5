"""Who sends a request, for log lines: where it came from and which program it names. Never a key, nor the URL."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple, Self
from urllib.parse import unquote

_AGENT_CHARACTERS: Final = 100
_GAMES_CHARACTERS: Final = 100
_IPV4_MAPPED: Final = "::ffff:"
"""How a socket for both families writes addresses of IPv4: RFC 4291 2.5.5.2."""
_PEER: Final = re.compile(r"ipv[46]:\[?(.*?)]?:[0-9]+")


class Caller(NamedTuple):
    """A client, as far as it is known before it has shown a key."""

    address: str
    """The address of the connection: that of the last proxy, where there is one. Empty when it is not known."""
    user_agent: str
    """What the client calls itself: printable, and of bounded length. Empty when it does not."""

    @classmethod
    def of(cls, address: str | None, user_agent: str | None) -> Self:
        """Make a caller of what a request says. Characters that are not printable are replaced."""
        agent = (user_agent or "")[:_AGENT_CHARACTERS]
        known = address or ""
        return cls(
            known.removeprefix(_IPV4_MAPPED) if "." in known else known,
            agent if agent.isprintable() else "".join(map(_printable, agent)),
        )

    @classmethod
    def of_peer(cls, peer: str, user_agent: str | None) -> Self:
        """Make a caller of gRPC's name of a connection, such as ``ipv6:%5B::1%5D:50051``."""
        found = _PEER.fullmatch(unquote(peer))
        return cls.of(found[1] if found else peer, user_agent)


def shown_games(games: Iterable[str]) -> str:
    """Return the names of games for a log line, comma-separated; a long list is cut, and none named means all."""
    return _shown(frozenset(games))


@lru_cache(1024)
def _shown(games: frozenset[str]) -> str:
    text = ",".join(sorted(games)) or "all"
    return text if len(text) <= _GAMES_CHARACTERS else f"{text[:_GAMES_CHARACTERS].rpartition(',')[0]},..."


def _printable(character: str) -> str:
    return character if character.isprintable() else "?"
