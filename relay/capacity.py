"""How many links this instance can take, from the memory it has been given."""

from pathlib import Path
from typing import Final

_BASE_BYTES: Final = 160 << 20
"""What the process needs before the first link, with room for replays and bursts."""
_LINK_BYTES: Final = 16 << 10
"""What a link costs with some bytes waiting in its buffers; an idle one costs about 3 KB (docs/benchmarks.md)."""
_WITHOUT_LIMIT: Final = 50_000
_CGROUP_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def links_for(memory_bytes: int) -> int:
    """Links that fit into `memory_bytes`; at least 100, so that a tiny instance still serves."""
    return max(100, min((memory_bytes - _BASE_BYTES) // _LINK_BYTES, _WITHOUT_LIMIT))


def default_links() -> int:
    """Links that fit into this container's memory limit; 50,000 when it has none."""
    for name in _CGROUP_FILES:
        try:
            text = Path(name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit
            return links_for(int(text))
    return _WITHOUT_LIMIT
