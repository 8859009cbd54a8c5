"""The log: the one JetStream stream that holds every round. Created when missing, checked when there, never changed.

Knows nothing of what publishers and relays do with it. Its settings and errors are in `roundlog.settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from roundlog.connection import connect, sentence
from roundlog.errors import Difference, LogError, LogMismatch, LogRefused, LogUnavailable, LogUnsuitable
from roundlog.settings import LogSettings
from rounds.cursor import epoch_of
from rounds.subjects import LIVE_TEMPLATE, LOG_SUBJECTS

__all__ = [
    "Difference",
    "LogError",
    "LogInfo",
    "LogMismatch",
    "LogRefused",
    "LogSettings",
    "LogUnavailable",
    "LogUnsuitable",
    "connect",
    "open_log",
]

_ANSWER_S: Final = 5.0
_MIN_SERVER: Final = (2, 11)
"""The first nats-server with batched direct get, which replay and the publisher's check of the tail read with."""
_NANO: Final = 1_000_000_000
_NO_STREAM: Final = 10059
_NO_JETSTREAM: Final = (10039, 10076)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """The stream as it was found or made."""

    epoch: str  # names this incarnation of the stream; the first half of every cursor
    first: int  # sequence of the oldest round kept; last + 1 when there is none
    last: int  # sequence of the newest round ever stored; 0 in a new stream
    stream: str
    last_at: datetime | None = None  # when the newest round was stored
    max_message_bytes: int = -1  # the stream's own limit for headers and data of a round; -1: none
    replicas: int = 1
    first_at: datetime | None = None  # when the oldest round kept was stored


async def open_log(nc: Client, settings: LogSettings) -> LogInfo:
    """Make the stream, or check that it is as `settings` want it; say where it stands.

    Raises:
        LogUnavailable: No answer in time, or the stream is missing and ``create`` is off.
        LogMismatch: The stream has other settings. It was not changed.
        LogUnsuitable: The server is too old, has no JetStream, or refuses such a stream.
    """
    _check_version(nc, settings)
    answer = await _ask(nc, f"$JS.API.STREAM.INFO.{settings.stream}", b"", settings)
    if answer.get("error", {}).get("err_code") == _NO_STREAM:
        if not settings.create:
            raise LogUnavailable(f"stream {settings.stream!r} does not exist, and RELAY_NATS_CREATE is off")
        wanted = msgspec.json.encode(_wanted(settings))
        answer = await _ask(nc, f"$JS.API.STREAM.CREATE.{settings.stream}", wanted, settings)
    if error := answer.get("error"):
        raise _api_error(error, settings)
    if differences := _differences(answer["config"], _wanted(settings)):
        raise LogMismatch(settings.stream, differences)
    state = answer["state"]
    return LogInfo(
        epoch=epoch_of(int(datetime.fromisoformat(answer["created"]).timestamp() * 1000)),
        first=state["first_seq"] or state["last_seq"] + 1,
        last=state["last_seq"],
        stream=settings.stream,
        last_at=datetime.fromisoformat(state["last_ts"]) if state["last_seq"] else None,
        max_message_bytes=answer["config"].get("max_msg_size", -1),
        replicas=answer["config"].get("num_replicas", 1),
        first_at=datetime.fromisoformat(state["first_ts"]) if state["first_seq"] else None,
    )


def _wanted(settings: LogSettings) -> dict[str, Any]:
    """Everything about the stream that the promises rest on; with `_UNWANTED`, all else is the operator's."""
    return {
        "name": settings.stream,
        "subjects": [LOG_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": round(settings.max_age_s * _NANO),
        "max_bytes": settings.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": round(settings.duplicate_window_s * _NANO),
        "num_replicas": settings.replicas,
        "allow_direct": True,
        "republish": {"src": LOG_SUBJECTS, "dest": LIVE_TEMPLATE},
    }


_UNWANTED: Final[Mapping[str, object]] = {
    "no_ack": False,  # nothing would ever be known to be stored
    "sealed": False,  # takes no rounds any more
    "mirror": None,  # takes none of ours
    "sources": None,  # rounds that no publisher has checked for repeats and order
    "subject_transform": None,  # stores a round as another game's
    "discard_new_per_subject": False,  # refuses rounds of a game
    "allow_msg_counter": False,  # takes numbers only
    "subject_delete_marker_ttl": 0,  # stores what is no round
    "persist_mode": "default",  # async: acks come before anything is written
}
"""What makes a promise fail when it is set at all, and how it is when it is not. Servers leave that out."""

_DURATIONS: Final = ("max_age", "duplicate_window")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[Difference, ...]:
    differences = []
    for name, value in wanted.items():
        actual = found.get(name)
        if actual == value:
            continue
        if name in _DURATIONS:
            differences.append(Difference(f"{name}_s", (actual or 0) / _NANO, value / _NANO))
        else:
            differences.append(Difference(name, actual, value))
    for name, unset in _UNWANTED.items():
        actual = found.get(name) or unset
        if actual != unset:
            differences.append(Difference(name, actual, unset))
    return tuple(differences)


async def _ask(nc: Client, subject: str, payload: bytes, settings: LogSettings) -> dict[str, Any]:
    try:
        message = await nc.request(subject, payload, timeout=_ANSWER_S)
    except NoRespondersError as error:
        raise _no_jetstream(settings) from error
    except (NatsError, TimeoutError, OSError) as error:
        raise LogUnavailable(f"NATS at {settings.shown_url} did not answer: {sentence(error)}") from error
    answer: dict[str, Any] = msgspec.json.decode(message.data)
    return answer


def _check_version(nc: Client, settings: LogSettings) -> None:
    version = nc.connected_server_version
    try:
        found = (version.major, version.minor)
    except ValueError:
        return  # a build of one's own; what it lacks shows when it is used
    if found < _MIN_SERVER:
        raise LogUnsuitable(
            f"NATS at {settings.shown_url} is version {found[0]}.{found[1]}; "
            "2.11 or newer is needed (batched direct get)"
        )


def _no_jetstream(settings: LogSettings) -> LogUnsuitable:
    return LogUnsuitable(
        f"NATS at {settings.shown_url} has no JetStream for this account; "
        "start it with -js or enable it for the account"
    )


def _api_error(error: dict[str, Any], settings: LogSettings) -> LogError:
    if error.get("err_code") in _NO_JETSTREAM:
        return _no_jetstream(settings)
    kind = LogUnavailable if error.get("code") == 503 else LogUnsuitable
    return kind(f"stream {settings.stream!r} cannot be opened: {error.get('description', 'no reason given')}")
