"""The error body of all HTTP paths: docs/errors.md."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web


def error_response(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build an answer with the error body: a sentence for people, and `code` for programs."""
    body: dict[str, Any] = {"error": sentence, "success": False, "code": code}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", charset="utf-8", headers=headers
    )


def internal_error() -> web.Response:
    """Build the answer to a request that failed because of a bug of ours, which the caller logs."""
    return error_response(500, "internal", "internal error; it has been logged")
