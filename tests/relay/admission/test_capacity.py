"""How many links fit, from the container's memory limit and the cost of a link of each protocol."""

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admission import capacity
from relay.admission.capacity import PROTOCOLS, Capacity, LinkProtocol, capacity_of
from relay.config.sections import LinkSettings

MB: Final = 1 << 20


def of_memory(memory_mb: int, *, unsent_bytes: int = 1 * MB, grpc_tls: bool = False) -> Capacity:
    return Capacity.of_memory(memory_mb * MB, unsent_bytes=unsent_bytes, grpc_tls=grpc_tls)


@pytest.mark.parametrize(
    ("memory_mb", "sse", "proxy", "grpc"),
    [
        (256, (8_500, 9_500), (3_000, 3_300), (1_600, 1_800)),
        (512, (32_000, 33_500), (11_000, 11_500), (6_000, 6_500)),
        (2048, (49_000, 50_000), (49_000, 50_000), (33_000, 34_000)),
    ],
)
def test_links_grow_with_memory(
    memory_mb: int, sse: tuple[int, int], proxy: tuple[int, int], grpc: tuple[int, int]
) -> None:
    """More links of cheaper protocols fit, up to what one process can serve."""
    room = of_memory(memory_mb)

    assert sse[0] <= room.fit("sse") == room.fit("websocket") <= sse[1]
    assert proxy[0] <= room.fit("proxy") <= proxy[1]
    assert grpc[0] <= room.fit("grpc") <= grpc[1]


@pytest.mark.parametrize("grpc_tls", [False, True])
@pytest.mark.parametrize("memory_mb", [0, 64, 160, 161])
def test_tiny_instance_still_serves(memory_mb: int, grpc_tls: bool) -> None:
    """100 links of any protocol fit, with any amount of memory."""
    room = of_memory(memory_mb, grpc_tls=grpc_tls)

    assert min(room.fit(protocol) for protocol in PROTOCOLS) == 100


@pytest.mark.parametrize("memory_mb", [700, 1024, 3000, 4096, 6000, 1 << 20, 1 << 43])
def test_one_process_has_its_limits(memory_mb: int) -> None:
    """At most 50,000 links fit, of one protocol or of several, with any amount of memory."""
    room = of_memory(memory_mb)

    assert 49_000 <= room.fit("sse") <= 50_000
    assert min(room.costs.values()) * 50_000 >= room.total


def test_tls_of_grpc_takes_its_memory() -> None:
    """A stream over TLS takes about twice as much; the other protocols have their TLS elsewhere."""
    plain, encrypted = of_memory(512), of_memory(512, grpc_tls=True)

    assert 3_200 <= encrypted.fit("grpc") <= 3_600
    assert encrypted.fit("proxy") == plain.fit("proxy")


def test_links_that_may_be_far_behind_take_more() -> None:
    """The memory for unsent bytes grows with their limit."""
    usual, far = of_memory(512), of_memory(512, unsent_bytes=8 * MB)

    assert {far.costs[protocol] - usual.costs[protocol] for protocol in PROTOCOLS} == {28 << 10}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory.max": f"{512 * MB}\n"}, of_memory(512)),
        ({"memory.max": "max\n"}, Capacity.of_links(50_000)),
        ({"memory.limit_in_bytes": f"{512 * MB}\n"}, of_memory(512)),
        ({"memory.limit_in_bytes": "9223372036854771712\n"}, Capacity.of_links(50_000)),
        ({}, Capacity.of_links(50_000)),
    ],
    ids=["cgroup2", "cgroup2_unlimited", "cgroup1", "cgroup1_unlimited", "no_cgroup"],
)
def test_limit_is_read_where_the_container_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, str], expected: Capacity
) -> None:
    """Either generation of control groups; without a limit, the most that a process takes."""
    _limit(monkeypatch, tmp_path, limits)

    assert capacity_of(LinkSettings(), grpc_tls=False) == expected


@pytest.mark.parametrize("memory", [None, 8192], ids=["any", "much"])
def test_number_that_is_set_counts_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, memory: int | None) -> None:
    """An operator's setting is a number of links of any protocol, where there is memory for them."""
    _limit(monkeypatch, tmp_path, {} if memory is None else {"memory.max": f"{memory * MB}\n"})

    room = capacity_of(LinkSettings(max_links=70_000), grpc_tls=True)

    assert {room.fit(protocol) for protocol in PROTOCOLS} == {70_000}
    assert room.bound == "setting"


@pytest.mark.parametrize(
    ("max_links", "expected", "bound"),
    [
        (200, {"websocket": 200, "sse": 200, "proxy": 200, "grpc": 200}, "setting"),
        (10_000, {"websocket": 10_000, "sse": 10_000, "proxy": 10_000, "grpc": 6_214}, "memory"),
        (70_000, {"websocket": 32_768, "sse": 32_768, "proxy": 11_264, "grpc": 6_214}, "memory"),
    ],
)
def test_least_of_memory_and_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, max_links: int, expected: dict[LinkProtocol, int], bound: str
) -> None:
    """For each protocol. The one named is that which allows the fewest of the most expensive links."""
    _limit(monkeypatch, tmp_path, {"memory.max": f"{512 * MB}\n"})

    room = capacity_of(LinkSettings(max_links=max_links), grpc_tls=False)

    assert {protocol: room.fit(protocol) for protocol in PROTOCOLS} == expected
    assert (room.bound, room.limits) == (bound, {"memory": 6_214, "setting": max_links})


@given(
    st.integers(1, 10_000), st.integers(1, 10_000), st.lists(st.sampled_from(PROTOCOLS), max_size=60), st.integers(1, 9)
)
def test_no_mix_of_protocols_exceeds_either_resource(
    first: int, second: int, links: list[LinkProtocol], dear: int
) -> None:
    """What fits into the merged capacity fits into each of the two."""
    one = Capacity(first, {**dict.fromkeys(PROTOCOLS, 1), "grpc": dear})
    costs: dict[LinkProtocol, int] = {**dict.fromkeys(PROTOCOLS, 2), "sse": 5}
    both = one.within("files", second, costs)

    if sum(both.costs[link] for link in links) <= both.total:
        assert sum(one.costs[link] for link in links) <= one.total
        assert sum(costs[link] for link in links) <= second


def _limit(monkeypatch: pytest.MonkeyPatch, folder: Path, limits: dict[str, str]) -> None:
    for name, text in limits.items():
        (folder / name).write_text(text)
    files = tuple(str(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
    monkeypatch.setattr(capacity, "_CGROUP_FILES", files)
