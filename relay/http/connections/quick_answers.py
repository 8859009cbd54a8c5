"""Answers to the bytes of a head: stream tokens, and refusals of API keys that nobody has.

A key is judged in a few microseconds; aiohttp's request, task and answer around that take twenty times as long. Owns
which requests are answered so: plain ones with one API key. They are judged by the same gate, counted and logged as
usual, and their answers are those of the usual way, to the byte; everything else is left to it.
Why: docs/adr/0033-answers-to-heads.md
"""

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from auth.credentials import Presented
from auth.key import InvalidCredential
from relay.admission.caller import Caller
from relay.admission.gate import Admission
from relay.admission.key_policy import FROM_BROWSERS
from relay.admission.refusals import Protocol, Refusals
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import REFUSALS, Quota, TooManyRequests, refusal_of
from relay.http.connections.guarded import GuardedHandler
from relay.http.connections.plain_head import PlainHead
from relay.http.connections.quick_refusals import QuickAnswer, QuickRefusals, headers_of
from relay.http.cors import CORS
from relay.http.error_body import error_json, refusal_headers
from relay.http.security_headers import BASE
from relay.http.tokens.token_answer import NOT_STORED, token_json

_HANDSHAKE: Final = b"GET /ws"
"""Is never plain."""
_TOKEN: Final = ("POST", "/api/auth/token")
_KEY_FIRST: Final = re.compile(
    r"/(?:sse(?:/type)?(?:/[^/]+)?|api/games|api/latest/[^/]+|api/history(?:/type/[^/]+|/[^/]+)?)"
)
"""Paths whose handlers look at the key before anything else."""
_BROWSER_FIELDS: Final = frozenset(name.lower() for name in FROM_BROWSERS)


class QuickAnswers:
    """Answers plain heads."""

    def __init__(self, admission: Admission, refusals: Refusals, proxies: TrustedProxies) -> None:
        """Answer as `admission` decides.

        Args:
            admission: Judges keys, and makes tokens.
            refusals: Counts and logs who was refused.
            proxies: Their requests come from addresses that are known later; they are handled as usual.
        """
        self._admission = admission
        self._refusals = refusals
        self._proxies = proxies
        self._over_limits = QuickRefusals(admission, refusals, proxies)

    def answer(self, data: bytes, connection: GuardedHandler) -> QuickAnswer | None:
        """Return the answer to a request that is all of `data`; None when it is to be handled as usual."""
        if self._over_limits.is_active:
            refused = self._over_limits.answer(data, connection.address)
            if refused is not None:
                return refused
        head = None if data.startswith(_HANDSHAKE) else PlainHead.read(data)
        if head is None or self._admission.draining:
            return None
        secret = _key_of(head.fields)
        if secret is None:
            return None
        caller = Caller.of(connection.address, head.fields.get("user-agent"))
        if self._proxies.trusts(caller.address):
            return None
        if (head.method, head.path) == _TOKEN:
            return self._token(head, secret, caller, connection)
        if head.method == "GET" and _KEY_FIRST.fullmatch(head.path) and not self._is_known(secret):
            return self._unknown(head, secret, caller)
        return None

    def _token(self, head: PlainHead, secret: str, caller: Caller, connection: GuardedHandler) -> QuickAnswer | None:
        admission, origin = self._admission, head.fields.get("origin")
        from_browser = not _BROWSER_FIELDS.isdisjoint(head.fields)
        if from_browser and secret.startswith("sk_") and self._is_known(secret):  # its owner is warned
            return None
        key_id, quota = None, None
        try:
            grant = admission.grant(Presented("key", secret), origin=origin, caller=caller)
            key_id = grant.key_id
            quota = admission.of_clients.request(grant, caller.address)
            if not connection.credential_accepted():
                raise admission.refusal("capacity")
            token, expires_at = admission.token(grant)
        except Exception as error:  # noqa: BLE001 - what is no refusal is handled as usual, and fails there
            return self._refused(error, "rest", caller, origin, key_id, quota)
        answer = _render(200, NOT_STORED, token_json(token, expires_at), quota, for_page=origin is not None)
        return QuickAnswer(answer, closes=False)

    def _is_known(self, secret: str) -> bool:
        try:
            self._admission.keys.recognize(secret)
        except InvalidCredential:
            return False
        return True

    def _unknown(self, head: PlainHead, secret: str, caller: Caller) -> QuickAnswer | None:
        origin = head.fields.get("origin")
        protocol: Protocol = "sse" if head.path.startswith("/sse") else "rest"
        try:
            self._admission.grant(Presented("key", secret), origin=origin, caller=caller)
        except (InvalidCredential, TooManyRequests) as error:
            return self._refused(error, protocol, caller, origin)
        except Exception:  # noqa: BLE001 - such as keys that cannot be judged now
            return None
        return None

    def _refused(
        self,
        error: Exception,
        protocol: Protocol,
        caller: Caller,
        origin: str | None,
        key_id: str | None = None,
        quota: Quota | None = None,
    ) -> QuickAnswer | None:
        refusal, closes = refusal_of(error), False
        if refusal is None:
            return None
        self._refusals.add(error, protocol, caller, key_id=key_id)
        if isinstance(error, InvalidCredential):
            return QuickAnswer(_unknown_key(str(error), int(time.time()), for_page=origin is not None), closes=False)
        if isinstance(error, TooManyRequests):
            quota, closes = error.quota or quota, error.closes
        body, headers = error_json(refusal.code, str(error)), refusal_headers(error, refusal.status)
        data = _render(refusal.status, headers, body, quota, for_page=origin is not None, closes=closes)
        return QuickAnswer(data, closes)


def _key_of(fields: Mapping[str, str]) -> str | None:
    """Return the API key of a request that has one, and nothing else that may be a credential."""
    secret, authorization = fields.get("x-api-key"), fields.get("authorization")
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        if secret is not None or scheme.lower() != "bearer":
            return None
        secret = bearer.strip()
    return secret if secret and "." not in secret else None  # a JWT has dots


def _render(
    status: int,
    special: Mapping[str, str],
    body: bytes,
    quota: Quota | None,
    *,
    for_page: bool,
    closes: bool = False,
) -> bytes:
    """Render an answer, its headers in the order of aiohttp."""
    headers = {
        **special,
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Date": _date(int(time.time())),
        "Server": "stream-relay",
        **BASE,
    }
    headers.setdefault("Cache-Control", "no-store")
    if quota is not None:
        headers |= headers_of(quota)
    if for_page:
        headers |= CORS
    if closes:
        headers["Connection"] = "close"
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {_status_line(status)}\r\n{lines}\r\n".encode("latin-1") + body


@lru_cache(8)
def _unknown_key(sentence: str, second: int, *, for_page: bool) -> bytes:
    """Render the answer to a key that nobody has: there are two sentences for that, and a date each second."""
    del second
    status, code = REFUSALS[InvalidCredential]
    headers = refusal_headers(InvalidCredential(sentence), status)
    return _render(status, headers, error_json(code, sentence), None, for_page=for_page)


@lru_cache(64)
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
