"""The answer to a request that could not be parsed, and the limits of heads. Pure."""

import re
from typing import Final, NamedTuple, Self

from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from relay.http.error_body import HTTP_CODES

LINE_BYTES: Final = 8190
"""The longest URL, and the longest header: aiohttp's own default."""
HEADERS: Final = 128
HEAD_BYTES: Final = 64 << 10
"""The largest head of a request. Those of browsers have 1 kB, with large cookies 16 kB."""

_UNKNOWN_METHOD: Final = re.compile(r"b'([A-Z]{1,24}) [^ ]+ HTTP/1\.[01]'")
"""In aiohttp's text of the error: a request line with a method that it does not know."""


class Malformed(NamedTuple):
    """The answer to a request that could not be parsed."""

    status: int
    code: str
    sentence: str

    @classmethod
    def too_large(cls, status: int, what: str) -> Self:
        return cls(status, HTTP_CODES[status], f"{what}, which is the limit")


_URL_TOO_LONG: Final = Malformed.too_large(414, f"the URL has more than {LINE_BYTES} bytes")
_HEADER_TOO_LONG: Final = Malformed.too_large(431, f"a header has more than {LINE_BYTES} bytes")
_TOO_MANY_HEADERS: Final = Malformed.too_large(431, f"the request has more than {HEADERS} headers")
HEAD_TOO_LARGE: Final = Malformed.too_large(431, f"the head of the request has more than {HEAD_BYTES} bytes")


_HTTP2: Final = Malformed(
    400,
    "bad_request",
    "the request is not well-formed HTTP/1.1: it begins as HTTP/2 does, which needs RELAY_HTTP_H2C=true on this port; "
    "gRPC has a port of its own",
)


def malformed_by(error: BaseException | None, *, in_first_line: bool) -> Malformed:
    """Return the answer to a request that aiohttp's parser refused."""
    text = str(getattr(error, "message", ""))
    if isinstance(error, LineTooLong):
        return _URL_TOO_LONG if in_first_line else _HEADER_TOO_LONG
    if "Too many headers" in text:
        return _TOO_MANY_HEADERS
    if isinstance(error, BadHttpMethod) and (method := _UNKNOWN_METHOD.search(text)):
        return Malformed(501, "unsupported", f"method {method[1]} is not supported")
    if text.startswith("Pause on PRI"):
        return _HTTP2
    if "'Host'" in text:
        return Malformed(400, "bad_request", "a request must have one Host header")
    return Malformed(400, "bad_request", "the request is not well-formed HTTP/1.1")
