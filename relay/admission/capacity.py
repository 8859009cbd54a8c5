"""How many links fit into this instance's memory.

Owns what a link costs by its protocol, and the memory limit. Does not know how many links are open, which
`relay.admission.gate` counts.
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
"""Memory of an open link that has been sent rounds: `python -m bench.link_memory`, 2026-11-29."""
_GRPC_TLS_BYTES: Final = 98 << 10
"""The same for gRPC with TLS; from the same run."""
_SOCKET_BYTES: Final = 4 << 10
"""Linux's memory of an accepted connection, which counts towards a container's limit; from the same run."""
_WAITING_BYTES: Final = 4 << 10
"""Unsent bytes of a link: a dozen rounds, to all links at once."""
_BEHIND: Final = 256
"""One link among so many may have all the unsent bytes that are allowed."""

_BASE_BYTES: Final = 160 << 20
"""Memory of the process before the first link, with room for replays and bursts."""
_MOST: Final = 50_000
"""More links than one process can serve with any memory."""
_FEWEST: Final = 100
"""A tiny instance still takes so many."""
_CGROUP_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Capacity(NamedTuple):
    """The size of an instance, and what a link of each protocol takes of it: in bytes, or in links at 1 each."""

    total: int
    costs: Mapping[LinkProtocol, int]

    @property
    def dearest(self) -> int:
        """The largest cost of a link."""
        return max(self.costs.values())

    def fit(self, protocol: LinkProtocol) -> int:
        """Links that fit if all are of one protocol."""
        return self.total // self.costs[protocol]

    @classmethod
    def of_links(cls, count: int) -> Self:
        """A capacity of `count` links of any protocol."""
        return cls(count, dict.fromkeys(PROTOCOLS, 1))

    @classmethod
    def of_memory(cls, memory_bytes: int, *, unsent_bytes: int, grpc_tls: bool) -> Self:
        """The capacity of a container: at least 100 links of any protocol, at most 50,000.

        Args:
            memory_bytes: The container's memory limit.
            unsent_bytes: The limit of unsent bytes of one link.
            grpc_tls: Whether the gRPC port uses TLS.
        """
        beside = _SOCKET_BYTES + max(_WAITING_BYTES, unsent_bytes // _BEHIND)
        costs = {protocol: idle + beside for protocol, idle in _LINK_BYTES.items()}
        if grpc_tls:
            costs["grpc"] = _GRPC_TLS_BYTES + beside
        dearest = max(costs.values())
        total = max(memory_bytes - _BASE_BYTES, _FEWEST * dearest)
        if total >= _MOST * dearest:
            return cls.of_links(_MOST)
        share = -(-total // _MOST)  # a link that costs at least this keeps the number of links below the maximum
        return cls(total, {protocol: max(cost, share) for protocol, cost in costs.items()})


def capacity_of(links: LinkSettings, *, grpc_tls: bool) -> Capacity:
    """Return the capacity of this instance: the links that are set, or else what its memory limit has room for."""
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
