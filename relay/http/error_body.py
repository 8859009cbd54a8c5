"""The error body of all HTTP paths: docs/errors.md."""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from auth.redact import redact
from relay.errors import TooManyRequests, Unavailable
from relay.http.connections.quick_refusals import retry_headers

JSON: Final = "application/json; charset=utf-8"
HTTP_CODES: Final = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "url_too_long",
    417: "expectation_failed",
    431: "head_too_large",
    505: "http_version_not_supported",
}
"""The codes of errors of HTTP itself. Those of the relay are in `relay.errors`."""

INTERNAL: Final = ("internal", "internal error; it has been logged")
"""Of a request that failed because of a bug of ours: the code, and the sentence."""

_HEADERS: Final = {
    401: {"WWW-Authenticate": "Bearer"},
    426: {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    503: {"Retry-After": "1"},
}


def error_response(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build an answer with the error body: a sentence for people, and `code` for programs."""
    body = error_json(code, sentence)
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8", headers=headers)


def error_json(code: str, sentence: str) -> bytes:
    """Return the error body."""
    # A sentence quotes what was sent, which may be a key in the wrong place. Answers end up in logs of clients.
    return msgspec.json.encode({"error": redact(sentence), "success": False, "code": code})


def refusal_headers(error: Exception, status: int) -> Mapping[str, str]:
    """Return the headers that HTTP has for what a client should do next."""
    if isinstance(error, Unavailable):
        return {"Retry-After": str(-(-error.retry_ms // 1000))}
    if isinstance(error, TooManyRequests):
        return retry_headers(error.retry_ms)
    return _HEADERS.get(status, {})


def internal_error() -> web.Response:
    """Build the answer to a request that failed because of a bug of ours, which the caller logs."""
    return error_response(500, *INTERNAL)
