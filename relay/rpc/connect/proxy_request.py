"""Read an HTTP call of the service: its dialect, message and deadline."""

import asyncio
import base64
import binascii
import struct
from typing import Final

from aiohttp import web
from google.protobuf.message import Message

from relay.errors import BadRequest, TooLarge, Unsupported, WrongMediaType
from relay.http.connections.expectations import read_expected_body
from relay.http.parameters import single
from relay.rpc.calls.call_head import timeout_s
from relay.rpc.calls.inflate import decompressed
from relay.rpc.connect.dialect import COMPRESSED, CONNECT_JSON, CONNECT_PROTO, DIALECTS, Dialect

_ENVELOPE_BYTES: Final = 5
_GET_PARAMETERS: Final = ("encoding", "message", "base64", "compression")
"""Query parameters of Connect's GET. Others are ignored, as its protocol requires."""


def dialect_of(request: web.Request) -> Dialect:
    """Return the dialect, by content type, or by ``encoding`` when the request is a GET.

    Raises:
        WrongMediaType: There is no such dialect.
        BadRequest: A parameter of the GET is given twice.
    """
    if request.method == "GET":
        encoding = _query(request).get("encoding", "json")
        if encoding not in ("json", "proto"):
            raise WrongMediaType(f"encoding={encoding[:40]}", allowed=("encoding=json", "encoding=proto"))
        return CONNECT_JSON if encoding == "json" else CONNECT_PROTO
    dialect = DIALECTS.get(request.content_type)
    if dialect is None:
        raise WrongMediaType(request.content_type, allowed=tuple(DIALECTS))
    return dialect


async def message_of(request: web.Request, dialect: Dialect, kind: type[Message], *, limit: int) -> Message:
    """Read the one message of a request.

    Raises:
        BadRequest: The message or its encoding is malformed.
        SlowRequest: It has not arrived in time.
        TooLarge: It has more than `limit` bytes, decompressed.
        Unsupported: It is compressed in a way that is not supported.
    """
    if request.method == "GET":
        return dialect.read(_message_in_query(request, limit), kind)
    if not dialect.streams:
        return dialect.read(await _body(request, limit), kind)
    body = await _body(request, (limit + _ENVELOPE_BYTES) * 4 // 3 + 4 if dialect.text else limit + _ENVELOPE_BYTES)
    if dialect.text:
        body = _decode_base64(body)
    header = "Grpc-Encoding" if dialect.web else "Connect-Content-Encoding"
    return dialect.read(message_in_envelope(body, request.headers.get(header, "identity"), limit), kind)


async def _body(request: web.Request, limit: int) -> bytes:
    """Read a body; stop as soon as it is too long or late."""
    encoding = _known(request.headers.get("Content-Encoding", "identity"))
    try:
        body = await read_expected_body(request, limit)
    except web.RequestPayloadError as error:
        raise BadRequest("the request's body does not match its headers") from error
    return _decompressed(bytes(body), encoding, limit)


def deadline_of(request: web.Request) -> float | None:
    """Return when the call ends, in loop time, None when it has no timeout; raise `BadRequest` as `_timeout_s` does."""
    timeout_s = _timeout_s(request)
    return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s


def _timeout_s(request: web.Request) -> float | None:
    """Return the timeout of a call in seconds, None when it has none; raise `BadRequest` when it is malformed."""
    text = request.headers.get("Connect-Timeout-Ms")
    if text is not None:
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return int(text) / 1000
        raise BadRequest(f"Connect-Timeout-Ms {text[:40]!r} is not a number of milliseconds of at most 10 digits")
    text = request.headers.get("Grpc-Timeout")
    return None if text is None else timeout_s(text, "Grpc-Timeout")


def _message_in_query(request: web.Request, limit: int) -> bytes:
    query = _query(request)
    data = query.get("message", "").encode()
    if query.get("base64") == "1":
        data = _decode_base64(data)
    return _decompressed(data, query.get("compression", "identity"), limit)


def _query(request: web.Request) -> dict[str, str]:
    return single(request.query.items(), _GET_PARAMETERS)


def _decode_base64(text: bytes) -> bytes:
    # Both alphabets, with or without padding: Connect's GET uses that of URLs, gRPC-Web the standard one.
    text = text.replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise BadRequest("the message is not base64") from error


def message_in_envelope(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the one message of a body, decompressed.

    Raises:
        BadRequest: There is no envelope, or the message is malformed.
        TooLarge: It has more than `limit` bytes, decompressed.
        Unsupported: The encoding is unknown.
    """
    if len(body) < _ENVELOPE_BYTES:
        raise BadRequest(f"the request has {len(body)} bytes and no envelope: a flag byte, 4 of length, a message")
    flags, size = struct.unpack_from("!BI", body)
    message = body[_ENVELOPE_BYTES:]
    if len(message) != size:
        raise BadRequest(f"the envelope says {size} bytes, and {len(message)} follow; one message is expected")
    plain = _decompressed(message if flags & COMPRESSED else b"", encoding, limit)
    return plain if flags & COMPRESSED else message


def _known(encoding: str) -> str:
    encoding = encoding.strip().lower()
    if encoding not in ("gzip", "identity"):
        raise Unsupported(f"encoding {encoding[:40]!r} is not known; send gzip or identity")
    return encoding


def _decompressed(data: bytes, encoding: str, limit: int) -> bytes:
    encoding = _known(encoding)
    if encoding == "gzip":
        return decompressed(data, encoding, limit)
    if len(data) > limit:
        raise TooLarge(limit)
    return data
