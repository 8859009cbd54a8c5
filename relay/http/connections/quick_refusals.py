"""Refuse requests over a limit before they are requests: with a prepared answer to the bytes of a head.

Owns which heads are answered so: those with one API key that is over a limit now, or that nobody has and comes from an
address that has sent too many wrong credentials. Everything else is left to the usual way, whose refusals look the
same and cost several times as much. Nothing is done while nobody is over a limit. Does not know limits.
"""

import re
from email.utils import formatdate
from typing import Final, NamedTuple

import msgspec

from relay.admission.caller import Caller
from relay.admission.gate import Admission
from relay.admission.refusals import Refusals
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import REFUSALS, TOO_MANY_REQUESTS, Quota, TooManyRequests
from relay.http.cors import CORS
from relay.http.security_headers import BASE

_HEAD: Final = re.compile(
    rb"\A(GET|POST|OPTIONS) (/[^ ?\r\n]*) HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)+\Z"
)
"""A whole head, of which the parser would understand the same: each line is one header (RFC 9112 section 5)."""
_CREDENTIAL: Final = re.compile(rb"\r\n(?:x-api-key|authorization|sec-websocket-protocol):", re.IGNORECASE)
_KEY: Final = re.compile(
    rb"\r\n(?:x-api-key:[ \t]*|authorization:[ \t]*bearer +)([sp]k_(?:live|test)_[0-9a-f]{64})[ \t]*\r\n",
    re.IGNORECASE,
)
_FROM_PAGE: Final = re.compile(rb"\r\norigin:", re.IGNORECASE)
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:transfer-encoding:|expect:|connection:[^\r]*\bclose\b|content-length:(?![ \t]*0[ \t]*\r))", re.IGNORECASE
)
"""After such a request, the connection is closed. What follows may be its body, which must not be read as a request."""
_BODY: Final = msgspec.json.encode(
    {"error": TOO_MANY_REQUESTS, "success": False, "code": REFUSALS[TooManyRequests].code}
)


class QuickAnswer(NamedTuple):
    """What is written."""

    data: bytes
    closes: bool


TAKEN: Final = QuickAnswer(b"", closes=False)
"""Nothing is written: the connection belongs to a link now, or its client has left."""


class QuickRefusals:
    """Answers heads of requests over a limit."""

    def __init__(self, admission: Admission, refusals: Refusals, proxies: TrustedProxies) -> None:
        """Refuse what `admission` does.

        Args:
            admission: Knows keys and limits.
            refusals: Counts and logs who was refused.
            proxies: Their requests come from addresses that are known later; they are handled as usual.
        """
        self._admission = admission
        self._refusals = refusals
        self._proxies = proxies

    @property
    def is_active(self) -> bool:
        """Whether anybody is over a limit now."""
        return self._admission.of_clients.ledger.refuses

    def answer(self, data: bytes, address: str) -> QuickAnswer | None:
        """Return the answer to a request that begins with `data`; None when it is to be handled as usual."""
        head = data[: data.find(b"\r\n\r\n") + 2]
        key = _KEY.search(head)
        line = None if key is None else _HEAD.match(head)
        if key is None or line is None or len(_CREDENTIAL.findall(head)) != 1:
            return None
        from_page = _FROM_PAGE.search(head) is not None
        if from_page and key[1].startswith(b"sk_"):  # its owner is warned in the answer
            return None
        caller = Caller.of(address, None)
        if self._proxies.trusts(caller.address):
            return None
        request, secret = f"{line[1].decode()} {line[2].decode('latin-1')}", key[1].decode()
        refusal = self._admission.quick_refusal(request, secret, caller.address)
        if refusal is None:
            return None
        self._refusals.add(refusal, "websocket" if line[2].startswith(b"/ws") else "rest", caller)
        closes = refusal.closes or len(data) > len(head) + 2 or _UNUSUAL.search(head) is not None
        return QuickAnswer(_render(refusal, closes=closes, for_page=from_page), closes)


def _render(refusal: TooManyRequests, *, closes: bool, for_page: bool) -> bytes:
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(_BODY)),
        **retry_headers(refusal.retry_ms),
        **({} if refusal.quota is None else headers_of(refusal.quota)),
        **BASE,
        **(CORS if for_page else {}),
        **({"Connection": "close"} if closes else {}),
        "Date": formatdate(usegmt=True),
        "Server": "stream-relay",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 429 Too Many Requests\r\n{lines}\r\n".encode("latin-1") + _BODY


def headers_of(quota: Quota) -> dict[str, str]:
    """Return the headers that say how much of a limit is free."""
    return {
        "X-Ratelimit-Limit": str(quota.limit),
        "X-Ratelimit-Remaining": str(quota.remaining),
        "X-Ratelimit-Reset": str(quota.reset_s),
    }


def retry_headers(retry_ms: int) -> dict[str, str]:
    """Return the headers that say when to come back; the answer is not to be stored."""
    return {"Retry-After": str(-(-retry_ms // 1000)), "Cache-Control": "no-store"}
