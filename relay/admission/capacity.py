"""How many links this instance can take, from the memory it has been given.

Owns what a link costs by its protocol. Who is here, and so what is left, is counted in `relay.admission.gate`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, get_args

from relay.config.sections import LinkSettings

LinkProtocol = Literal["websocket", "sse", "proxy", "grpc"]
PROTOCOLS: Final[tuple[LinkProtocol, ...]] = get_args(LinkProtocol)

_LINK_BYTES: Final[Mapping[LinkProtocol, int]] = {
    "websocket": 3 << 10,
    "sse": 3 << 10,
    "proxy": 24 << 10,  # aiohttp keeps the request, its headers and two tasks
    "grpc": 50 << 10,  # with a connection of its own; one of many on a connection takes 34 KB
}
"""What an open link adds to the process once it has been sent rounds: `python -m bench.link_memory`, 2026-11-29."""
_GRPC_TLS_BYTES: Final = 98 << 10
"""Instead, where the gRPC port speaks TLS; from the same run."""
_SOCKET_BYTES: Final = 4 << 10
"""What Linux keeps for an accepted connection, which containers are charged for; from the same run."""
_WAITING_BYTES: Final = 4 << 10
"""Room for what is on its way to each client: a dozen rounds, to all of them at once."""
_BEHIND: Final = 256
"""Or for one link among so many that is as far behind as it may be."""

_BASE_BYTES: Final = 160 << 20
"""What the process needs before the first link, with room for replays and bursts."""
_MOST: Final = 50_000
"""More than one process can look after, whatever its memory."""
_FEWEST: Final = 100
"""A tiny instance still serves."""
_CGROUP_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Capacity(NamedTuple):
    """What all links may take together, and what one takes of it, by its protocol: bytes, or 1 where links count."""

    total: int
    costs: Mapping[LinkProtocol, int]

    @property
    def dearest(self) -> int:
        return max(self.costs.values())

    def fit(self, protocol: LinkProtocol) -> int:
        """Links that fit if all are of one protocol."""
        return self.total // self.costs[protocol]

    @classmethod
    def of_links(cls, count: int) -> Self:
        """So many links, whatever their protocols."""
        return cls(count, dict.fromkeys(PROTOCOLS, 1))

    @classmethod
    def of_memory(cls, memory_bytes: int, *, unsent_bytes: int, grpc_tls: bool) -> Self:
        """What fits into a container of `memory_bytes`: at least 100 links of any kind, at most 50,000.

        Args:
            memory_bytes: The container's limit.
            unsent_bytes: Bytes that may wait for one link.
            grpc_tls: Whether the gRPC port speaks TLS.
        """
        beside = _SOCKET_BYTES + max(_WAITING_BYTES, unsent_bytes // _BEHIND)
        costs = {protocol: idle + beside for protocol, idle in _LINK_BYTES.items()}
        if grpc_tls:
            costs["grpc"] = _GRPC_TLS_BYTES + beside
        dearest = max(costs.values())
        total = max(memory_bytes - _BASE_BYTES, _FEWEST * dearest)
        if total >= _MOST * dearest:
            return cls.of_links(_MOST)
        share = -(-total // _MOST)  # when each takes at least this, there are no more of them
        return cls(total, {protocol: max(cost, share) for protocol, cost in costs.items()})


def capacity_of(links: LinkSettings, *, grpc_tls: bool) -> Capacity:
    """Say what this instance takes: as many links as are set, else what fits into its container's memory limit."""
    if links.max_links:
        return Capacity.of_links(links.max_links)
    memory_bytes = _memory_limit()
    if memory_bytes is None:
        return Capacity.of_links(_MOST)
    return Capacity.of_memory(memory_bytes, unsent_bytes=links.unsent_bytes, grpc_tls=grpc_tls)


def _memory_limit() -> int | None:
    for name in _CGROUP_FILES:
        try:
            text = Path(name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit
            return int(text)
    return None
