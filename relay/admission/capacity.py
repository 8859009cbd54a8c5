"""How many links fit into this instance: the least of its memory, its open files and the setting.

Owns what a link costs by its protocol, and the memory limit. Does not know how many links are open, which
`relay.admission.gate` counts, nor what else needs files, which `relay.admission.open_files` knows.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Self, get_args

from relay.config.sections import LinkSettings

LinkProtocol = Literal["websocket", "sse", "proxy", "grpc"]
PROTOCOLS: Final[tuple[LinkProtocol, ...]] = get_args(LinkProtocol)

Resource = Literal["memory", "files", "setting", "process"]
"""What bounds the number of links; ``process``: what one process can serve with any memory."""

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
_HELD_BYTES: Final = 64 << 20
"""Requests that are not whole, and answers that are not read; half of it below `_ROOMY_BYTES` of memory. An idle relay
has 80 MB, so both fit into `_BASE_BYTES`."""
_ROOMY_BYTES: Final = 2 << 30
_MOST: Final = 50_000
"""More links than one process can serve with any memory."""
_FEWEST: Final = 100
"""A tiny instance still takes so many."""
_CGROUP_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Capacity(NamedTuple):
    """The size of an instance, and what a link of each protocol takes of it: in bytes, or in links at 1 each."""

    total: int
    costs: Mapping[LinkProtocol, int]
    limits: Mapping[Resource, int] = MappingProxyType({})
    """Links of the most expensive protocol that fit into each resource alone."""

    @property
    def bound(self) -> Resource:
        """The resource that allows the fewest links."""
        return min(self.limits, key=self.limits.__getitem__, default="setting")

    @property
    def dearest(self) -> int:
        """The largest cost of a link."""
        return max(self.costs.values())

    def fit(self, protocol: LinkProtocol) -> int:
        """Links that fit if all are of one protocol."""
        return self.total // self.costs[protocol]

    def within(self, resource: Resource, total: int, costs: Mapping[LinkProtocol, int]) -> Self:
        """Return the capacity that is also within `total` of another resource, at `costs` a link.

        A link then costs the larger of its two shares, so that no mix of protocols exceeds either resource.
        """
        merged = {name: max(cost * total, costs[name] * self.total) for name, cost in self.costs.items()}
        limits = {**self.limits, resource: total // max(costs.values())}
        return type(self)(self.total * total, merged, limits)

    @classmethod
    def of_links(cls, count: int, resource: Resource = "process") -> Self:
        """A capacity of `count` links of any protocol."""
        return cls(count, dict.fromkeys(PROTOCOLS, 1), {resource: count})

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
        costs = {protocol: max(cost, share) for protocol, cost in costs.items()}
        return cls(total, costs, {"memory": total // max(costs.values())})


def capacity_of(links: LinkSettings, *, grpc_tls: bool) -> Capacity:
    """Return the capacity of this instance by its memory limit and the links that are set; files are not counted.

    Args:
        links: The setting, and the limit of unsent bytes.
        grpc_tls: Whether the gRPC port uses TLS.
    """
    memory_bytes = _memory_limit()
    if memory_bytes is None:
        return Capacity.of_links(links.max_links, "setting") if links.max_links else Capacity.of_links(_MOST)
    capacity = Capacity.of_memory(memory_bytes, unsent_bytes=links.unsent_bytes, grpc_tls=grpc_tls)
    if not links.max_links:
        return capacity
    if capacity.bound == "process":
        return Capacity.of_links(links.max_links, "setting")
    return capacity.within("setting", links.max_links, dict.fromkeys(PROTOCOLS, 1))


def held_bytes_limit() -> int:
    """Return how many bytes connections may hold that are no links; a part of what is reserved beside links."""
    memory_bytes = _memory_limit()
    return _HELD_BYTES if memory_bytes is None or memory_bytes >= _ROOMY_BYTES else _HELD_BYTES // 2


def _memory_limit() -> int | None:
    for name in _CGROUP_FILES:
        try:
            text = Path(name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit
            return int(text)
    return None
