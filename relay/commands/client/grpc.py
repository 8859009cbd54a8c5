"""Follow rounds over gRPC, for `relay.commands.client.follow`."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
from grpc import StatusCode, aio

from relay.admission.requested import asks_corrections
from relay.commands.client.target import OPEN, Ended, Interrupted, Refused, Target, Unreachable
from relay.errors import BadRequest
from relay.history.start import Start, parse_time
from relay.rpc.methods import SERVICE
from rounds import Filter, InvalidCursor, InvalidFilter, Round
from rounds import datastream_pb2 as pb
from rounds.round import with_cursor

_PORT: Final = 50051
_OPTIONS: Final = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))
"""Detect dead connections: a stream with few rounds may be silent for long."""
_FATAL: Final = (
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.OUT_OF_RANGE,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
)


async def read_grpc(_session: object, target: Target, parameters: Mapping[str, str]) -> AsyncIterator[bytes]:
    """Yield each round's JSON from one stream, after an event with the cursor at which a live stream begins.

    Raises:
        Refused: A parameter is wrong, or the relay refused the call; with the relay's sentence.
        Ended: The stream has reached the requested end.
        Unreachable: No gRPC server answers at the address; retry.
        Interrupted: The stream ended; retry with the error's cursor and delay.
    """
    try:  # parameters that the request's fields cannot hold are refused here, with the sentences of other protocols
        Filter.parse(parameters)
        Start.parse(parameters)
    except (BadRequest, InvalidCursor, InvalidFilter) as error:
        raise Refused(str(error)) from error
    filter_, start, corrections = _filter(parameters), _start(parameters), asks_corrections(parameters)
    async with _channel(target) as channel:
        if target.game is None:
            request: Any = pb.StreamAllRequest(filter=filter_, start=start, corrections=corrections)
            method = "StreamAll"
        else:
            request = pb.StreamByGameRequest(
                game_slug=target.game, filter=filter_, start=start, corrections=corrections
            )
            method = "StreamByGame"
        call = channel.unary_stream(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=pb.Round.FromString,
        )(request, metadata=(("x-api-key", target.key),))
        try:
            metadata = _text_of(await call.initial_metadata())
            if "head-cursor" in metadata:
                yield OPEN
            if "head-cursor" in metadata and "complete" not in metadata:  # a live stream, which begins there
                yield b'{"event":"begun","cursor":"%b"}' % metadata["head-cursor"].encode()
            async for message in call:
                yield _json_of(message)
        except aio.AioRpcError as error:
            if error.code() in _FATAL:
                raise Refused(error.details() or error.code().name) from error
            if channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:  # after a loss it is IDLE
                address = _address(target)
                other = "for another address use --url grpc://host:port, with TLS grpcs://host:port"
                raise Unreachable(address, f"does a relay serve gRPC at {address}? {other}") from error
            metadata = _text_of(error.trailing_metadata())
            wait_ms = metadata.get("retry-after-ms", "")
            raise Interrupted(
                error.details() or error.code().name,
                cursor=metadata.get("resume-cursor"),
                wait_s=int(wait_ms) / 1000 if wait_ms.isdigit() else None,
            ) from error
    raise Ended


def _text_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {name: value for name, value in metadata or () if isinstance(value, str)}


def _address(target: Target) -> str:
    parts = urlsplit(target.url)
    port = parts.port if parts.scheme in ("grpc", "grpcs") and parts.port else _PORT
    host = parts.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _channel(target: Target) -> aio.Channel:
    address = _address(target)
    if urlsplit(target.url).scheme in ("https", "grpcs"):
        return aio.secure_channel(address, grpc.ssl_channel_credentials(), options=_OPTIONS)
    return aio.insecure_channel(address, options=_OPTIONS)


def _filter(parameters: Mapping[str, str]) -> pb.Filter:
    filter_ = pb.Filter(
        colors=[value for value in parameters.get("colors", "").split(",") if value],
        trends=[value for value in parameters.get("trends", "").split(",") if value],
    )
    for name in ("min_point", "max_point"):
        if name in parameters:
            setattr(filter_, name, float(parameters[name]))
    return filter_


def _start(parameters: Mapping[str, str]) -> pb.Start:
    start = pb.Start(
        after=parameters.get("after", ""),
        last=int(parameters.get("last", 0)),
        speed=float(parameters.get("speed", 0)),
        allow_gap=True,
    )
    for name, field in (("from", start.from_time), ("to", start.to_time)):
        moment_ms = parse_time(parameters, name)
        if moment_ms is not None:
            field.FromMilliseconds(moment_ms)
    return start


def _json_of(message: pb.Round) -> bytes:
    if message.HasField("gap"):
        gap = message.gap
        return b'{"event":"gap","from":"%b","to":"%b","reason":"%b"}' % (
            gap.from_cursor.encode(),
            gap.to_cursor.encode(),
            gap.reason.encode(),
        )
    round_ = Round(
        message.round_id,
        message.game_slug,
        message.game_type,
        message.finished_at,
        message.extras,
        message.timestamp,
        message.revision or 1,
        message.voided,
    )
    return with_cursor(round_.to_json(), message.cursor)
