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
from relay.errors import Quota, refusal_of
from relay.http.connections.quick_refusals import headers_of
from relay.http.cors import cors_headers, warning_headers
from relay.http.early.asked import Asked
from relay.http.error_body import INTERNAL, JSON, error_json, refusal_headers
from relay.http.security_headers import add_to

_NO_BODY: Final = (204, 304)
_QUOTA_NAMES: Final = tuple(headers_of(Quota(0, 0, 0)))
_QUOTA_LINES: Final = "".join(f"{name}: %d\r\n" for name in _QUOTA_NAMES).encode()


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Those that only this answer has."""
    body: bytes = b""
    rounds: int | None = None
    """How many are counted as used by its key; None: it is not counted."""


class Head(NamedTuple):
    """The head of an answer without what differs each time: the date, and the state of a limit."""

    begin: bytes  # up to the date
    middle: bytes  # up to the state of the limit
    end: bytes

    def at(self, quota: Quota | None) -> bytes:
        """Return the head of an answer that is sent now."""
        limit = b"" if quota is None else _QUOTA_LINES % quota
        return b"%bDate: %b\r\n%b%b%b" % (self.begin, date().encode(), self.middle, limit, self.end)


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


def head_of(answer: Answer, asked: Asked, *, closes: bool) -> Head:
    """Return the head of an answer, with its headers in the order of aiohttp."""
    headers = dict(answer.headers)
    if answer.status not in _NO_BODY:
        headers["Content-Length"] = str(len(answer.body))
    headers["Date"] = ""
    complete(headers, asked, for_pages=True)
    if closes:
        headers["Connection"] = "close"
    parts = [[f"HTTP/1.1 {_status_line(answer.status)}\r\n"]]
    for name, value in headers.items():
        if name == "Date" or name == _QUOTA_NAMES[0]:
            parts.append([])
        elif name not in _QUOTA_NAMES:
            parts[-1].append(f"{name}: {value}\r\n")
    begin, middle, end = ["".join(part).encode("latin-1") for part in (*parts, ())[:3]]
    return Head(begin, middle, end + b"\r\n")


def date() -> str:
    """Return the time as headers have it."""
    return _date(int(time.time()))


@lru_cache(64)
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
