"""The one error body that every HTTP answer has."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web


def error_response(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build the one error body that every HTTP answer has."""
    body: dict[str, Any] = {"error": sentence, "success": False, "code": code}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", charset="utf-8", headers=headers
    )
