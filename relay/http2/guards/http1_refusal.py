"""The answer to a client that speaks HTTP/1 on a port for HTTP/2. Pure."""

import re
from typing import Final

_REQUEST: Final = re.compile(rb"[A-Z]{3,20} (?:/|\*|https?://)", re.IGNORECASE)
_BODY: Final = (
    b'{"error":"this port speaks HTTP/2, for gRPC; REST, WebSocket and SSE are on the HTTP port",'
    b'"success":false,"code":"http_version_not_supported"}'
)
_ANSWER: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\n"
    b"Content-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Cache-Control: no-store\r\n"
    b"Connection: close\r\n\r\n" % len(_BODY)
) + _BODY


def http1_refusal(data: bytes) -> bytes:
    """Return the answer to the first bytes of a connection; nothing when they are no request of HTTP/1."""
    return _ANSWER if _REQUEST.match(data) else b""
