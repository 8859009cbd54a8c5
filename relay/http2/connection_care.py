"""What time does to a connection: deadlines, idle time, keepalive pings, age.

Owns when a connection is asked to leave, pinged or cut. Does not know how that is written.
"""

from collections.abc import Collection
from enum import IntEnum
from typing import Final, Protocol

from relay.http2.http2_frames import Http2Code
from relay.http2.http2_limits import Http2Limits
from relay.http2.peer_budget import FaultReason, PeerError

_ANSWER_S: Final = 2.0
"""Time for the answer to the ping between the two steps of leaving: more than a round trip."""
_LINGER_S: Final = 1.0
"""Time for the peer to close a connection that has no streams and takes no more."""
_UNREAD_S: Final = 1.0
"""Time for the rest of a request that was answered before its end."""
_FLUSH_S: Final = 5.0
"""Time for the peer to take the last bytes of a connection that was closed."""


class Leaving(IntEnum):
    """The steps of a graceful end (RFC 9113 section 6.8)."""

    NO = 0
    ANNOUNCED = 1  # the peer opens no more streams once it has read so; those on the way are served
    FINAL = 2  # the peer knows which streams are served


class CaredStream(Protocol):
    """A stream, as far as time concerns it."""

    ended_at: float | None

    def is_ending(self) -> bool: ...
    def reset(self, code: int = ...) -> None: ...


class Cared(Protocol):
    """A connection, as far as time concerns it. Times are those of one clock."""

    expires_at: float
    heard_at: float  # when the peer sent something last
    pinged_at: float | None  # when we sent a ping that nothing has followed
    partial_since: float | None  # since when a frame, a header block or the preface is incomplete
    quiet_since: float | None  # since when there is no stream
    leaving: Leaving
    leaving_at: float
    closed_at: float | None

    @property
    def open_streams(self) -> Collection[CaredStream]: ...
    def ping(self) -> None: ...
    def leave(self, step: Leaving) -> None: ...
    def fail(self, error: PeerError) -> None: ...
    def reset_unread(self, before: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


def look_at(connection: Cared, now: float, limits: Http2Limits) -> None:
    """Do what is due on a connection. Called every second or so."""
    if connection.closed_at is not None:
        if now - connection.closed_at > _FLUSH_S:
            connection.abort()
    elif connection.partial_since is not None and now - connection.partial_since > limits.preface_s:
        text = "the rest of a frame did not come in time"
        connection.fail(PeerError(Http2Code.ENHANCE_YOUR_CALM, text, FaultReason.SLOW))
    elif not _is_alive(connection, now, limits):
        connection.abort()
    else:
        connection.reset_unread(now - _UNREAD_S)
        _end_slow_streams(connection, now, limits)
        _leave(connection, now, limits)


def _is_alive(connection: Cared, now: float, limits: Http2Limits) -> bool:
    pinged_at = connection.pinged_at
    if pinged_at is not None:
        if connection.heard_at < pinged_at:
            return now - pinged_at <= limits.keepalive_timeout_s
        connection.pinged_at = None
    if now - connection.heard_at >= limits.keepalive_s:
        connection.pinged_at = now
        connection.ping()
    return True


def _leave(connection: Cared, now: float, limits: Http2Limits) -> None:
    quiet_since = connection.quiet_since
    match connection.leaving:
        case Leaving.NO:
            if now >= connection.expires_at or (quiet_since is not None and now - quiet_since > limits.idle_s):
                connection.leave(Leaving.ANNOUNCED)
        case Leaving.ANNOUNCED:
            if now - connection.leaving_at > _ANSWER_S:
                connection.leave(Leaving.FINAL)
        case Leaving.FINAL:
            if quiet_since is not None and now - max(quiet_since, connection.leaving_at) > _LINGER_S:
                connection.close()


def _end_slow_streams(connection: Cared, now: float, limits: Http2Limits) -> None:
    if any(stream.is_ending() for stream in connection.open_streams):
        for stream in [*connection.open_streams]:
            if stream.is_ending():
                if stream.ended_at is None:
                    stream.ended_at = now
                elif now - stream.ended_at > limits.end_s:
                    stream.reset(Http2Code.CANCEL)
