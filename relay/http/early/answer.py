"""The answer to a request as a plain value, its headers, and its bytes.

Owns the headers that every answer has, and where errors become answers: for the answers that are written here and for
those of aiohttp. Pure, except for the clock.
"""

import time
from collections.abc import Mapping, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from relay.admission.refusals import Refusals
from relay.errors import refusal_of
from relay.http.connections.quick_refusals import headers_of
from relay.http.cors import cors_headers, warning_headers
from relay.http.early.asked import Asked
from relay.http.error_body import INTERNAL, JSON, error_json, refusal_headers
from relay.http.security_headers import add_to

_NO_BODY: Final = (204, 304)


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Those that only this answer has."""
    body: bytes = b""


def refused(asked: Asked, error: Exception, refusals: Refusals) -> Answer | None:
    """Return the answer to a request that was refused with `error`, which is counted and logged; None: it is a bug."""
    refusal = refusal_of(error)
    if refusal is None:
        return None
    refusals.add(error, asked.counted_as, asked.caller, key_id=asked.key_id)
    asked.note_refusal(error)
    headers = {**refusal_headers(error, refusal.status), "Content-Type": JSON}
    return Answer(refusal.status, headers, error_json(refusal.code, str(error)))


def failed() -> Answer:
    """Return the answer to a request that failed because of a bug of ours, which the caller logs."""
    return Answer(500, {"Content-Type": JSON}, error_json(*INTERNAL))


def quota_headers(asked: Asked) -> dict[str, str]:
    """Return the headers that say how much of the limit is free that the answer shows."""
    return {} if asked.quota is None else headers_of(asked.quota)


def complete(headers: MutableMapping[str, str], asked: Asked, *, for_pages: bool) -> None:
    """Add the headers that every answer has; `for_pages`: pages of other origins may read it."""
    headers["Server"] = "stream-relay"  # without names and versions of libraries
    add_to(headers)
    headers.update(warning_headers(asked))
    headers.update(quota_headers(asked))
    if for_pages:
        headers.update(cors_headers(asked))


def render(answer: Answer, asked: Asked, *, closes: bool) -> bytes:
    """Return the bytes of an answer, with its headers in the order of aiohttp."""
    headers = dict(answer.headers)
    if answer.status not in _NO_BODY:
        headers["Content-Length"] = str(len(answer.body))
    headers["Date"] = date()
    complete(headers, asked, for_pages=True)
    if closes:
        headers["Connection"] = "close"
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {_status_line(answer.status)}\r\n{lines}\r\n".encode("latin-1") + answer.body


def date() -> str:
    """Return the time as headers have it."""
    return _date(int(time.time()))


@lru_cache(64)
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
