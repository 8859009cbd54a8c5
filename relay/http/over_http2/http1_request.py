"""A request of HTTP/2 as the head of one of HTTP/1.1 (RFC 9113 section 8). Pure.

Owns what must not get into such a head: a line end or a name that another request could begin with.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from relay.http2.header_blocks import HeaderFields

_METHOD: Final = re.compile(rb"[A-Z]{1,24}")
_TARGET: Final = re.compile(rb"[/*][\x21-\x7e]*")
_NAME: Final = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(rb"[^\0\r\n]*")
_DROPPED: Final = frozenset(
    (b"connection", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"upgrade")
)
"""Fields of one connection, and those that are made here."""


class NotHttp1(Exception):
    """The request has no equivalent in HTTP/1.1."""


class Http1Request(NamedTuple):
    """The head of a request, and how its body is sent."""

    head: bytes
    is_chunked: bool
    has_answer_body: bool
    """False for HEAD."""

    @classmethod
    def of(cls, headers: HeaderFields, *, has_body: bool) -> Self:
        """Render headers that were checked by `h2`.

        Args:
            headers: Those of the stream.
            has_body: Whether the request does not end with its headers.

        Raises:
            NotHttp1: It is a CONNECT, or has bytes that do not belong into a head.
        """
        pseudo = {name: value for name, value in headers if name.startswith(b":")}
        fields = [(name, value) for name, value in headers if not name.startswith(b":")]
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        host = pseudo.get(b":authority") or dict(fields).get(b"host", b"")
        if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target) or not _VALUE.fullmatch(host):
            raise NotHttp1
        lines = [b"%b %b HTTP/1.1" % (method, target), b"host: %b" % host, *_lines(fields)]
        names = {name for name, _ in fields}
        if b"transfer-encoding" in names:
            raise NotHttp1
        is_chunked = has_body and b"content-length" not in names
        if is_chunked:
            lines.append(b"transfer-encoding: chunked")
        return cls(b"\r\n".join((*lines, b"", b"")), is_chunked, method != b"HEAD")


def _lines(fields: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    lines, cookies = [], []
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise NotHttp1
        if name == b"cookie":
            cookies.append(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            continue  # HTTP/2 has the body whether or not it is waited for
        elif name not in _DROPPED:
            lines.append(b"%b: %b" % (name, value))
    if cookies:  # HTTP/2 may cut them (section 8.2.3)
        lines.append(b"cookie: " + b"; ".join(cookies))
    return lines
