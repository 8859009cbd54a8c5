"""The streams: created when missing, checked when present, never changed.

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
from roundlog.log_errors import Difference, LogError, LogMismatch, LogUnavailable, LogUnsuitable, NoResponders
from roundlog.log_settings import LogSettings
from rounds.cursor import epoch_of
from rounds.subjects import LIVE_TEMPLATE, LOG_SUBJECTS

NANO: Final = 1_000_000_000
"""Nanoseconds of a second: durations in a stream's configuration are in nanoseconds."""
_MIN_SERVER: Final = (2, 11)
"""The first nats-server with batched direct get, which replays and the publisher's check of the tail need."""
FIRST_WITH_BATCHES: Final = (2, 14)
"""The first nats-server with fast-ingest batches. Such a stream cannot be used by an older server."""
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


class StreamInfo(msgspec.Struct):
    """What the API says of a stream, or why there is none."""

    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    created: str = ""
    error: ApiError | None = None


async def open_log(connection: Connection, settings: LogSettings) -> LogInfo:
    """Create the stream, or check that it has the configuration that `settings` describe; return its state.

    Raises:
        LogUnavailable: No answer in time, or the stream is missing and ``create`` is off.
        LogMismatch: The stream has other settings. It was not changed.
        LogUnsuitable: The server is too old, has no JetStream, or refuses such a stream.
    """
    _check_version(connection, settings)
    wanted = _wanted(settings)
    try:
        info = await ensure_stream(connection, wanted | _at_creation(connection, settings), create=settings.create)
    except NoResponders as error:
        raise _no_jetstream(settings.shown_url) from error
    if differences := _differences(info.config, wanted):
        raise LogMismatch(settings.stream, differences)
    state = info.state
    return LogInfo(
        epoch=epoch_of(int(datetime.fromisoformat(info.created).timestamp() * 1000)),
        first=state["first_seq"] or state["last_seq"] + 1,
        last=state["last_seq"],
        stream=settings.stream,
        last_at=datetime.fromisoformat(state["last_ts"]) if state["last_seq"] else None,
        max_message_bytes=info.config.get("max_msg_size", -1),
        replicas=info.config.get("num_replicas", 1),
        first_at=datetime.fromisoformat(state["first_ts"]) if state["first_seq"] else None,
        allows_batches=bool(info.config.get("allow_batched")),
    )


async def ensure_stream(connection: Connection, config: Mapping[str, Any], *, create: bool = True) -> StreamInfo:
    """Return what the server says of the stream ``config["name"]``; create it from `config` when it is missing.

    A stream that exists is returned as it is.

    Raises:
        NoResponders: No JetStream, or a cluster without a leader.
        LogUnavailable: No answer in time, or the stream is missing and `create` is off.
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
    """The settings that the guarantees need, together with `_UNWANTED`. All others belong to the operator."""
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


_UNWANTED: Final[Mapping[str, object]] = {
    "no_ack": False,  # on: no publish is ever acknowledged
    "sealed": False,  # on: the stream takes no rounds
    "mirror": None,  # set: the stream takes no publishes
    "sources": None,  # set: adds rounds whose repeats and order no publisher has checked
    "subject_transform": None,  # set: stores a round under another game
    "discard_new_per_subject": False,  # on: refuses rounds of a game
    "allow_msg_counter": False,  # on: takes numbers only
    "subject_delete_marker_ttl": 0,  # set: stores messages that are not rounds
    "persist_mode": "default",  # "async": acks before anything is written
}
"""Settings that break a guarantee when they are set, and their unset values, which servers leave out."""

_DURATIONS: Final = ("max_age", "duplicate_window")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[Difference, ...]:
    differences = []
    for name, value in wanted.items():
        actual = found.get(name)
        if actual == value:
            continue
        if name in _DURATIONS:
            differences.append(Difference(f"{name}_s", (actual or 0) / NANO, value / NANO))
        else:
            differences.append(Difference(name, actual, value))
    for name, unset in _UNWANTED.items():
        actual = found.get(name) or unset
        if actual != unset:
            differences.append(Difference(name, actual, unset))
    return tuple(differences)


def _check_version(connection: Connection, settings: LogSettings) -> None:
    found = connection.server_version  # None: a custom build; what it lacks shows when it is used
    if found is not None and found < _MIN_SERVER:
        raise LogUnsuitable(
            f"NATS at {settings.shown_url} is version {found[0]}.{found[1]}; "
            "2.11 or newer is needed (batched direct get)"
        )


def _no_jetstream(shown_url: str) -> LogUnsuitable:
    return LogUnsuitable(
        f"NATS at {shown_url} has no JetStream for this account; start it with -js or enable it for the account"
    )


def _stream_error(name: str, error: ApiError, shown_url: str) -> LogError:
    if error.err_code in _NO_JETSTREAM:
        return _no_jetstream(shown_url)
    kind = LogUnavailable if error.code == NatsStatus.UNAVAILABLE else LogUnsuitable
    return kind(f"stream {name!r} cannot be opened: {error.description}")
