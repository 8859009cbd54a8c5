"""The streams: created when missing, compared when present, never changed.

Owns the settings of the one JetStream stream that holds every round, the log. Knows nothing of what publishers and
relays do with it. Settings and errors are in `roundlog.log_settings` and `roundlog.log_errors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from roundlog.client.api import ApiError, ask_api
from roundlog.client.codes import ErrorCode, NatsStatus
from roundlog.client.connection import Connection
from roundlog.log_errors import LogError, LogMismatch, LogUnavailable, LogUnsuitable, NoResponders
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_settings import HARMLESS, NANO, NO_DIFFERENCES, Differences, compare
from roundlog.promises.stream_watch import StreamWatch
from rounds.cursor import Cursor, epoch_of
from rounds.subjects import LIVE_TEMPLATE, LOG_SUBJECTS

_MIN_SERVER: Final = (2, 11)
"""The first nats-server with batched direct get, which replays and the publisher's check of the tail need."""
FIRST_WITH_BATCHES: Final = (2, 14)
"""The first nats-server with fast-ingest batches. Such a stream cannot be used by an older server."""
_NO_TIME: Final = "0001-01-01T"
"""How a time that is not set begins: an empty stream has none."""
_NO_JETSTREAM: Final = (ErrorCode.NO_JETSTREAM, ErrorCode.NO_JETSTREAM_FOR_ACCOUNT)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """The stream as it was found or created."""

    epoch: str  # names this incarnation of the stream; the first half of every cursor
    first: int  # sequence of the oldest round in it; last + 1 when there is none
    last: int  # sequence of the newest round ever stored; 0 in a new stream
    stream: str
    last_at: datetime | None = None  # when the newest round was stored
    max_message_bytes: int = -1  # the stream's own limit for headers and data of a round; -1: none
    replicas: int = 1
    first_at: datetime | None = None  # when the oldest round in it was stored
    allows_batches: bool = False  # whether it takes fast-ingest batches; see `roundlog.publish.fast_batch`
    duplicate_window_s: float = 120.0  # how long the server itself recognises ids
    deleted: int = 0  # how many messages after its oldest one were deleted or purged
    differences: Differences = NO_DIFFERENCES  # from the settings that are needed


class StreamInfo(msgspec.Struct):
    """What the API says of a stream, or why there is none."""

    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    created: str = ""
    error: ApiError | None = None


async def open_log(connection: Connection, settings: LogSettings, watch: StreamWatch | None = None) -> LogInfo:
    """Create the stream, or check that it keeps what we promise; return its state.

    Differences that break no promise are in the result, and `watch` logs them.

    Raises:
        LogMismatch: Settings of the stream break a promise. It was not changed.
        LogUnavailable: No answer in time, or the stream is missing and ``create`` is off.
        LogUnsuitable: The server is too old, has no JetStream, or refuses such a stream.
    """
    info = await read_log(connection, settings, watch)
    if info.differences.broken:
        raise LogMismatch(settings.stream, info.differences.broken)
    return info


async def read_log(connection: Connection, settings: LogSettings, watch: StreamWatch | None = None) -> LogInfo:
    """Return the state of the stream as `open_log` does, also of one whose settings break a promise."""
    _check_version(connection, settings)
    wanted = _wanted(settings)
    try:
        info = await ensure_stream(connection, wanted | _at_creation(connection, settings), create=settings.create)
    except NoResponders as error:
        raise _no_jetstream(settings.shown_url) from error
    differences = compare(info.config, wanted)
    if watch is not None:
        watch.note(settings.stream, differences, stopped=is_stopped(info.state))
    state = info.state
    first = state["first_seq"] or state["last_seq"] + 1
    return LogInfo(
        epoch=_epoch_of(info),
        first=first,
        last=state["last_seq"],
        stream=settings.stream,
        last_at=_time_of(state["last_ts"]),
        max_message_bytes=info.config.get("max_msg_size", -1),
        replicas=info.config.get("num_replicas", 1),
        allows_batches=bool(info.config.get("allow_batched")),
        first_at=_time_of(state["first_ts"]) if state["first_seq"] else None,
        duplicate_window_s=info.config.get("duplicate_window", 0) / NANO,
        deleted=max(0, state["last_seq"] + 1 - first - state["messages"]),
        differences=differences,
    )


async def check_log(connection: Connection, settings: LogSettings) -> tuple[Differences, bool]:
    """Compare the log, which may be missing, with the settings, and say whether it `is_stopped`; raise as below."""
    return await _check(connection, _wanted(settings), HARMLESS)


async def last_sequence(connection: Connection, settings: LogSettings) -> int:
    """Return the sequence of the newest round ever stored; 0 in a new stream. Compares and creates nothing.

    Raises:
        LogUnavailable: No answer in time, or no such stream.
    """
    return (await end_of_log(connection, settings)).sequence


async def end_of_log(connection: Connection, settings: LogSettings) -> Cursor:
    """Return the place of the newest round ever stored, as `last_sequence` does, in the stream that there is now."""
    info = await ask_api(connection, f"STREAM.INFO.{settings.stream}", None, StreamInfo)
    if info.error is not None:
        raise LogUnavailable(info.error.description)
    return Cursor(_epoch_of(info), int(info.state["last_seq"]))


def _epoch_of(info: StreamInfo) -> str:
    return epoch_of(int(datetime.fromisoformat(info.created).timestamp() * 1000))


async def check_stream(connection: Connection, wanted: Mapping[str, Any], *, harmless: frozenset[str]) -> Differences:
    """Compare the stream ``wanted["name"]``, which may be missing, with `wanted`; see `compare`.

    Raises:
        LogUnavailable: No answer in time, no leader, or the connection is lost.
        LogUnsuitable: The server does not answer for such a stream.
    """
    return (await _check(connection, wanted, harmless))[0]


async def _check(
    connection: Connection, wanted: Mapping[str, Any], harmless: frozenset[str]
) -> tuple[Differences, bool]:
    info = await ask_api(connection, f"STREAM.INFO.{wanted['name']}", None, StreamInfo)
    if info.error is None:
        return compare(info.config, wanted, harmless=harmless), is_stopped(info.state)
    if info.error.err_code == ErrorCode.STREAM_NOT_FOUND:
        return NO_DIFFERENCES, False
    raise _stream_error(wanted["name"], info.error, connection.shown_url)


async def ensure_stream(connection: Connection, config: Mapping[str, Any], *, create: bool = True) -> StreamInfo:
    """Return what the server says of the stream ``config["name"]``; create it from `config` when it is missing.

    A stream that exists is returned as it is.

    Raises:
        NoResponders: No JetStream, or a cluster without a leader.
        LogUnavailable: No answer in time, another process is creating it, or it is missing and `create` is off.
        LogUnsuitable: The server refuses such a stream.
    """
    name = config["name"]
    info = await ask_api(connection, f"STREAM.INFO.{name}", None, StreamInfo)
    if info.error is not None and info.error.err_code == ErrorCode.STREAM_NOT_FOUND:
        if not create:
            raise LogUnavailable(f"stream {name!r} does not exist, and RELAY_NATS_CREATE is off")
        info = await ask_api(connection, f"STREAM.CREATE.{name}", config, StreamInfo)
        if info.error is not None and info.error.err_code == ErrorCode.STREAM_NAME_IN_USE:  # created meanwhile
            info = await ask_api(connection, f"STREAM.INFO.{name}", None, StreamInfo)
    if info.error is not None:
        raise _stream_error(name, info.error, connection.shown_url)
    return info


def _wanted(settings: LogSettings) -> dict[str, Any]:
    """The settings that we create the log with, and compare it with."""
    return {
        "name": settings.stream,
        "subjects": [LOG_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": round(settings.max_age_s * NANO),
        "max_bytes": settings.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": round(settings.duplicate_window_s * NANO),
        "num_replicas": settings.replicas,
        "allow_direct": True,
        "republish": {"src": LOG_SUBJECTS, "dest": LIVE_TEMPLATE},
    }


def _at_creation(connection: Connection, settings: LogSettings) -> dict[str, Any]:
    """Settings that a new stream gets and that a found one need not have."""
    version = connection.server_version
    return {"allow_batched": True} if settings.replicas > 1 and version and version >= FIRST_WITH_BATCHES else {}


def is_stopped(state: Mapping[str, Any]) -> bool:
    """Say whether the stream stores nothing any more, because nats-server could not write to its disk.

    It then answers no publish until it is restarted, and loses the time of the newest message (nats-server 2.15).
    """
    return bool(state.get("messages")) and _time_of(state.get("last_ts", _NO_TIME)) is None


def _time_of(text: str) -> datetime | None:
    return None if text.startswith(_NO_TIME) else datetime.fromisoformat(text)


def _check_version(connection: Connection, settings: LogSettings) -> None:
    found = connection.server_version  # None: a custom build; what it lacks shows when it is used
    if found is not None and found < _MIN_SERVER:
        raise LogUnsuitable(
            f"NATS at {settings.shown_url} is version {found[0]}.{found[1]}; "
            "2.11 or newer is needed (batched direct get)"
        )


def _no_jetstream(shown_url: str) -> LogUnsuitable:
    return LogUnsuitable(
        f"NATS at {shown_url} has no JetStream for this account; start it with -js, and enable it for the account"
        " or import it from the account of the log"
    )


def _stream_error(name: str, error: ApiError, shown_url: str) -> LogError:
    if error.err_code in _NO_JETSTREAM:
        return _no_jetstream(shown_url)
    # Not found although its name is in use: this server of a cluster does not have it yet.
    passes = error.code == NatsStatus.UNAVAILABLE or error.err_code == ErrorCode.STREAM_NOT_FOUND
    kind = LogUnavailable if passes else LogUnsuitable
    return kind(f"stream {name!r} cannot be opened: {error.description}")
