"""How many links fit: from the container's memory limit to the number that admission keeps."""

from pathlib import Path

import pytest

from relay import capacity
from relay.capacity import default_links, links_for

MB = 1 << 20


@pytest.mark.parametrize(
    ("memory_mb", "at_least", "at_most"),
    [
        (0, 100, 100),
        (128, 100, 100),
        (256, 5000, 7000),
        (512, 20_000, 25_000),
        (2048, 50_000, 50_000),
        (1 << 20, 50_000, 50_000),
    ],
)
def test_links_grow_with_memory(memory_mb: int, at_least: int, at_most: int) -> None:
    """A tiny instance still serves, and none takes more than one process can look after."""
    assert at_least <= links_for(memory_mb * MB) <= at_most


@pytest.mark.parametrize(
    ("limits", "links"),
    [
        ({"memory.max": f"{512 * MB}\n"}, links_for(512 * MB)),
        ({"memory.max": "max\n"}, 50_000),
        ({"memory.limit_in_bytes": f"{512 * MB}\n"}, links_for(512 * MB)),
        ({"memory.limit_in_bytes": "9223372036854771712\n"}, 50_000),
        ({}, 50_000),
    ],
    ids=["cgroup2", "cgroup2_unlimited", "cgroup1", "cgroup1_unlimited", "no_cgroup"],
)
def test_limit_is_read_where_the_container_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, str], links: int
) -> None:
    """Either generation of control groups; without a limit, the most that a process takes."""
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    files = tuple(str(tmp_path / name) for name in ("memory.max", "memory.limit_in_bytes"))
    monkeypatch.setattr(capacity, "_CGROUP_FILES", files)

    assert default_links() == links
