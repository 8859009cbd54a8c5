"""The error body of all HTTP paths: docs/errors.md."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from auth.redact import redact

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


def error_response(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build an answer with the error body: a sentence for people, and `code` for programs."""
    # A sentence quotes what was sent, which may be a key in the wrong place. Answers end up in logs of clients.
    body: dict[str, Any] = {"error": redact(sentence), "success": False, "code": code}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", charset="utf-8", headers=headers
    )


def internal_error() -> web.Response:
    """Build the answer to a request that failed because of a bug of ours, which the caller logs."""
    return error_response(500, "internal", "internal error; it has been logged")
