"""Convert between domain values and the messages of proto/datastream.proto. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from relay.errors import BadRequest
from relay.history.start import LATEST_MS, MAX_LAST, MAX_SPEED, MIN_SPEED, Start
from relay.live.encode import Renderable
from relay.rpc.wire import round_bytes
from rounds import Cursor, Filter
from rounds import datastream_pb2 as pb

M = TypeVar("M", bound=Message)

MAX_HEARTBEAT_S: Final = 60
"""As for event streams. Proxies often close what is silent for a minute."""


def parse_message(data: bytes, kind: type[M]) -> M:
    """Read a serialized message; raise `BadRequest` when it is malformed."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadRequest(f"the request is no {kind.DESCRIPTOR.full_name} message") from error


def round_message(item: Renderable) -> pb.Round:
    """Return the message of one round."""
    return pb.Round.FromString(round_bytes(item.round, item.cursor))


def gap_message(event: Mapping[str, object]) -> pb.Round:
    """Return the message of a gap, from the gap event of the other protocols."""
    gap = pb.Gap(from_cursor=str(event["from"]), to_cursor=str(event["to"]), reason=str(event["reason"]))
    return pb.Round(gap=gap)


def read_filter(message: pb.Filter) -> Filter:
    """Read a filter; raise `InvalidFilter` as for any other protocol."""
    return Filter.build(
        min_point=repr(message.min_point) if message.HasField("min_point") else None,
        max_point=repr(message.max_point) if message.HasField("max_point") else None,
        colors=message.colors,
        trends=message.trends,
    )


def read_start(message: pb.Start, after: str) -> Start:
    """Read where a stream begins and ends; `after` is the request's own field, a shorthand for the one in `message`.

    Raises:
        InvalidCursor: A cursor is malformed.
        BadRequest: Another value is invalid, or there is more than one beginning.
    """
    if after and message.after and after != message.after:
        raise BadRequest("after and start.after differ; send one of them")
    since_ms, until_ms = read_times(message)
    start = Start(
        after=read_cursor(after or message.after), since_ms=since_ms, last=message.last or None, until_ms=until_ms
    )
    if sum(beginning is not None for beginning in (start.after, start.since_ms, start.last)) > 1:
        raise BadRequest("more than one of after, from_time and last was given; a stream has one beginning")
    if start.last is not None and start.last > MAX_LAST:
        raise BadRequest(f"last {start.last} is not a whole number from 1 to {MAX_LAST}")
    if message.speed == 0:
        return start
    if not MIN_SPEED <= message.speed <= MAX_SPEED:
        raise BadRequest(f"speed {message.speed:g} is not a number from {MIN_SPEED:g} to {MAX_SPEED:g}")
    return replace(start, speed=message.speed)


def read_heartbeat(message: pb.Start) -> float | None:
    """Read the interval of heartbeats in seconds, None for none; raise `BadRequest` when it is too long."""
    if message.heartbeat_s > MAX_HEARTBEAT_S:
        raise BadRequest(f"heartbeat_s {message.heartbeat_s} is not a whole number from 1 to {MAX_HEARTBEAT_S}")
    return message.heartbeat_s or None


def read_times(message: pb.Start | pb.GetHistoryRequest) -> tuple[int | None, int | None]:
    """Read ``from_time`` and ``to_time`` as Unix milliseconds; raise `BadRequest` when the first is the later one."""
    since_ms = _read_time(message.from_time) if message.HasField("from_time") else None
    until_ms = _read_time(message.to_time) if message.HasField("to_time") else None
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise BadRequest(
            f"from_time {message.from_time.seconds} is later than to_time {message.to_time.seconds}; it must not be"
        )
    return since_ms, until_ms


def _read_time(moment: Timestamp) -> int:
    """Return Unix milliseconds, at least 0 and at most `LATEST_MS`.

    A message may hold seconds out of the range of a `Timestamp`: client libraries do not check it.
    """
    return min(max(0, moment.seconds * 1000 + moment.nanos // 1_000_000), LATEST_MS)


def read_cursor(text: str) -> Cursor | None:
    """Read an optional cursor; raise `InvalidCursor` when it is malformed."""
    return Cursor.parse(text) if text else None
