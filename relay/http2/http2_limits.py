"""What a peer of an HTTP/2 connection may use, and how long."""

from dataclasses import dataclass
from typing import Any, Final, Self

_RESETS: Final = 200
_FRAMES: Final = 1000


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """The limits of every connection of a port. Times are in seconds."""

    streams: int = 100
    """Open streams of one connection; more are refused (REFUSED_STREAM). RFC 9113 recommends no less than 100."""
    header_bytes: int = 16 << 10
    """Size of a header list, by the count of RFC 9113 section 6.5.2, which is announced to the peer.

    A service refuses what is larger (`Http2Stream.header_bytes`), up to four times as much: a client sends its first
    request before it knows this limit. The connection ends at more.
    """
    preface_s: float = 10.0
    """Time for the first bytes of a connection, and for each frame and header block that has begun."""
    idle_s: float = 300.0
    """Time that a connection may be without a stream."""
    keepalive_s: float = 60.0
    """Silence of the peer before it is sent a ping."""
    keepalive_timeout_s: float = 20.0
    """Time for an answer to that ping; any byte is one."""
    ping_s: float = 5.0
    """Time between two pings of the peer while we send nothing. The third that comes sooner ends the connection."""
    age_s: float = 3600.0
    """Age at which a connection takes no more streams; open ones stay. Up to a sixth less, so that ages differ."""
    end_s: float = 30.0
    """Time for the peer to take the rest of a stream that we have ended."""
    resets: int = _RESETS
    """Streams that may be reset at once, by the peer or for its errors (CVE-2023-44487, CVE-2025-8671)."""
    resets_per_s: float = 20.0
    """How fast that allowance is refilled."""
    frames: int = _FRAMES
    """Frames that bring nothing (pings, settings, window updates, priorities, empty data) that may come at once."""
    frames_per_s: float = 100.0
    """How fast that allowance is refilled; what we send refills it too, since peers answer data with such frames."""

    @classmethod
    def for_streams(cls, streams: int, **others: Any) -> Self:
        """Return limits in which the allowances follow from the streams of a connection; `others` as they are given.

        A client may cancel all of its streams at once. For each that it opens it may also send four frames that
        bring nothing, such as windows and a priority: grpcio with 900 streams sends more than two of each.
        """
        allowances = {"resets": max(_RESETS, streams), "frames": max(_FRAMES, 4 * streams)}
        return cls(streams=streams, **{**allowances, **others})
