"""The paths of the admin API: what each reads from a request, and the verb that it calls.

Owns the order of a request: credential, parameters, body, verb. What a verb does is decided in `relay.admin.key_admin`.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

import msgspec
import structlog
from aiohttp import web

from auth.signing.compact import MalformedToken, read_object
from relay.admin.admin_credentials import AdminCredential, is_admin_secret
from relay.admin.admin_errors import AdminError, InvalidChange
from relay.admin.administration import Administration
from relay.admin.api.admin_openapi import document
from relay.admin.api.attempts import ALLOWED, Attempts
from relay.admin.api.connected import Connected
from relay.admin.key_admin import OVERLAP_S, REVOKED_S, KeyAdmin, NewSecret, StoredKey
from relay.admin.key_document import document_of, status_of_key, time_or_none
from relay.admission.limits.rules import network_of
from relay.audit.audit_entry import Actor, AuditEntry
from relay.errors import WrongMediaType
from relay.history.start import parse_int
from relay.http.connections.guarded import read_body
from relay.http.error_body import error_response
from relay.http.parameters import read_query
from relay.http.request import caller_of
from relay.usage.usage_form import KeyUsage, total
from relay.usage.usage_reader import UsageByHour
from roundlog.log_errors import LogError

log = structlog.get_logger()

_BODY_BYTES: Final = 16 << 10
_JSON_TYPES: Final = ("application/json", "application/merge-patch+json")
_KNOWN_S: Final = 0.5
"""How long credentials are used without another look: one that is disabled is refused within a second."""
_USED_S: Final = 10.0
"""The same for the last use of keys, which relays report more rarely."""
_LAST_USED_DAYS: Final = 7
_MOST_HOURS: Final = 24 * 400
_MOST_ENTRIES: Final = 1000
_MOST_S: Final = 10**9
"""Larger numbers of seconds are none; each verb has a limit of its own."""
_NO_STORE: Final = {"Cache-Control": "no-store"}


class Call(NamedTuple):
    """A request whose credential was accepted."""

    request: web.Request
    parts: Administration
    keys: KeyAdmin

    @property
    def key_id(self) -> str:
        """The key that the path names."""
        return str(self.request.match_info["id"])


Verb = Callable[[Call], Awaitable[web.Response]]


class AdminRoutes:
    """The handlers of the admin API."""

    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._wrong = Attempts()
        self._known: tuple[float, list[AdminCredential]] = (float("-inf"), [])
        self._used: tuple[float, UsageByHour] = (float("-inf"), {})
        self._looking = asyncio.Lock()

    def table(self) -> list[web.RouteDef]:
        read, write = self._reading, self._writing
        return [
            web.get("/openapi.json", read(self._describe)),
            web.get("/admin/keys", read(self._list)),
            web.post("/admin/keys", write(self._create)),
            web.get("/admin/keys/{id}", read(self._show)),
            web.patch("/admin/keys/{id}", write(self._patch)),
            web.delete("/admin/keys/{id}", write(self._delete)),
            web.post("/admin/keys/{id}/rotate", write(self._rotate)),
            web.post("/admin/keys/{id}/disable", write(self._disable)),
            web.post("/admin/keys/{id}/enable", write(self._enable)),
            web.get("/admin/keys/{id}/usage", read(self._usage_of_key)),
            web.get("/admin/usage", read(self._usage)),
            web.post("/admin/revocations", write(self._revoke)),
            web.get("/admin/audit", read(self._audit)),
        ]

    # --- the credential ------------------------------------------------------------------------------------------

    def _reading(self, verb: Verb) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return await self._call(request, verb, changes=False)

        return handle

    def _writing(self, verb: Verb) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return await self._call(request, verb, changes=True)

        return handle

    async def _call(self, request: web.Request, verb: Verb, *, changes: bool) -> web.Response:
        parts: Administration | None = None
        try:
            presented = _bearer(request)
            if presented is None:
                return _unauthorized("send an admin credential: Authorization: Bearer admin_...")
            # Before anything is asked of NATS: what has another form is no credential.
            parts = await self._connected.parts() if is_admin_secret(presented) else None
            credential = None if parts is None else await self._credential(parts, presented)
            if parts is None or credential is None:
                return await self._refuse(request, presented)
            if changes and credential.read_only:
                return error_response(403, "not_allowed", f"the credential {credential.id!r} may only read")
            actor = Actor("admin", credential.id, caller_of(request).address)
            return await verb(Call(request, parts, parts.keys(actor)))
        except (AdminError, LogError) as error:
            shown = error if parts is None else parts.denied(error)
            log.info("admin_request_failed", method=request.method, path=request.path[:200], error=str(shown))
            status, code = (shown.status, shown.code) if isinstance(shown, AdminError) else (503, "nats_unavailable")
            return error_response(status, code, str(shown), {"Retry-After": "1"} if status == 503 else None)

    async def _credential(self, parts: Administration, secret: str) -> AdminCredential | None:
        async with self._looking:
            looked_at, known = self._known
            if time.monotonic() - looked_at >= _KNOWN_S:
                known = await parts.admins.all()
                self._known = (time.monotonic(), known)
        return parts.admins.find(secret, known)

    async def _refuse(self, request: web.Request, presented: str) -> web.Response:
        address = caller_of(request).address
        count, ends_in_s = self._wrong.add(network_of(address))
        if count in (1, ALLOWED):  # one line for an attack, and one when it is limited
            await self._note_refusal(presented, address, limited=count == ALLOWED)
        if count > ALLOWED:
            response = error_response(
                429,
                "too_many_requests",
                "Too many requests, please slow down",
                {"Retry-After": str(max(1, round(ends_in_s)))},
            )
        else:
            response = _unauthorized("the admin credential is unknown, disabled or expired")
        response.force_close()
        return response

    async def _note_refusal(self, presented: str, address: str, *, limited: bool) -> None:
        shown = "malformed"
        if is_admin_secret(presented):
            shown = f"sha256:{hashlib.sha256(presented.encode()).hexdigest()[:8]}"
        log.warning("admin_credential_refused", credential=shown, address=address, limited=limited)
        entry = AuditEntry.of_change(
            Actor("relay", "admin-api", address), "admin.refused", shown, detail={"limited": limited}
        )
        with suppress(AdminError, LogError):
            await (await self._connected.parts()).audit.record_refused(entry)

    # --- keys ----------------------------------------------------------------------------------------------------

    async def _list(self, call: Call) -> web.Response:
        read_query(call.request.query.items(), ())
        keys, faults = await call.keys.all_and_faults()
        used = await self._last_uses(call.parts)
        shown = [{**_shown(key), "last_used": _last_used(used, key.id)} for key in keys]
        return _json({"keys": shown, "faults": faults})

    async def _create(self, call: Call) -> web.Response:
        members = await _body(call.request)
        if not isinstance(members.get("id"), str):
            raise InvalidChange("id is missing; it is 1 to 64 letters, digits, '.', '_' and '-'")
        new = await call.keys.create(members)
        return _with_secret(new, status=201, headers={"Location": f"/admin/keys/{new.key.id}"})

    async def _show(self, call: Call) -> web.Response:
        read_query(call.request.query.items(), ())
        stored = await call.keys.get(call.key_id)
        used = await self._last_uses(call.parts)
        document = {**_shown(stored.key), "last_used": _last_used(used, stored.key.id)}
        return _json(document, headers=_etag(stored.revision))

    async def _patch(self, call: Call) -> web.Response:
        patch = await _body(call.request)
        return _stored(await call.keys.change(call.key_id, patch, revision=_if_match(call.request)))

    async def _delete(self, call: Call) -> web.Response:
        await _no_members(call.request)
        await call.keys.delete(call.key_id, revision=_if_match(call.request))
        return web.Response(status=204, headers=_NO_STORE)

    async def _rotate(self, call: Call) -> web.Response:
        members = await _body(call.request, ("overlap_s",))
        overlap_s = _number(members, "overlap_s", OVERLAP_S)
        return _with_secret(await call.keys.rotate(call.key_id, overlap_s=overlap_s, revision=_if_match(call.request)))

    async def _disable(self, call: Call) -> web.Response:
        await _no_members(call.request)
        return _stored(await call.keys.disable(call.key_id, revision=_if_match(call.request)))

    async def _enable(self, call: Call) -> web.Response:
        await _no_members(call.request)
        return _stored(await call.keys.enable(call.key_id, revision=_if_match(call.request)))

    # --- usage, revocations, audit -------------------------------------------------------------------------------

    async def _usage_of_key(self, call: Call) -> web.Response:
        await call.keys.get(call.key_id)
        found = await _usage(call)
        return _json(_usage_document(call.key_id, found.get(call.key_id, {})))

    async def _usage(self, call: Call) -> web.Response:
        found = await _usage(call)
        return _json({"keys": [_usage_document(key_id, found[key_id]) for key_id in sorted(found)]})

    async def _revoke(self, call: Call) -> web.Response:
        members = await _body(call.request, ("token", "subject", "for_s", "issued_before_now"))
        given = [(what, members[what]) for what in ("token", "subject") if members.get(what) is not None]
        if len(given) != 1 or not isinstance(given[0][1], str):
            raise InvalidChange("give either token (its jti) or subject, as text")
        before_now = members.get("issued_before_now", False)
        if not isinstance(before_now, bool):
            raise InvalidChange("issued_before_now must be true or false")
        what: Literal["token", "subject"] = "token" if given[0][0] == "token" else "subject"
        for_s = _number(members, "for_s", REVOKED_S)
        revocation = await call.keys.revoke(what, given[0][1], for_s=for_s, only_issued_before_now=before_now)
        return _json(
            {
                "what": revocation.what,
                "value": revocation.value,
                "until": time_or_none(revocation.until),
                "issued_before": time_or_none(revocation.issued_before),
            },
            status=201,
        )

    async def _audit(self, call: Call) -> web.Response:
        query = read_query(call.request.query.items(), ("limit", "refused"))
        limit = parse_int(query, "limit", at_least=1, at_most=_MOST_ENTRIES) if "limit" in query else 50
        if query.get("refused", "true") not in ("true", "false"):
            raise InvalidChange(f"refused {query['refused'][:20]!r} is not true or false")
        entries = await call.parts.audit.newest(limit, refused=query.get("refused") != "false")
        return _json({"entries": entries})

    async def _describe(self, _call: Call) -> web.Response:
        return _json(document())

    async def _last_uses(self, parts: Administration) -> UsageByHour:
        """Return what keys used; without it, keys are shown all the same."""
        async with self._looking:
            looked_at, used = self._used
            if time.monotonic() - looked_at >= _USED_S:
                try:
                    used = await parts.usage.since(time.time() - _LAST_USED_DAYS * 86_400)
                except LogError as error:
                    log.warning("usage_not_read", error=str(error))
                self._used = (time.monotonic(), used)
        return used


async def _usage(call: Call) -> UsageByHour:
    query = read_query(call.request.query.items(), ("hours",))
    hours = parse_int(query, "hours", at_least=1, at_most=_MOST_HOURS) if "hours" in query else 24
    return await call.parts.usage.since(time.time() - hours * 3600)


def _usage_document(key_id: str, hours: Mapping[int, KeyUsage]) -> Mapping[str, object]:
    return {
        "key": key_id,
        "total": _figures(total(hours)),
        "hours": [{"hour": time_or_none(hour), **_figures(hours[hour])} for hour in sorted(hours)],
    }


def _last_used(used: UsageByHour, key_id: str) -> str | None:
    return time_or_none(int(total(used.get(key_id, {})).last_used))


def _figures(usage: KeyUsage) -> dict[str, object]:
    return {**msgspec.structs.asdict(usage), "last_used": time_or_none(int(usage.last_used))}


def _bearer(request: web.Request) -> str | None:
    """Return the credential of a request; None when there is none, or more than one."""
    values = request.headers.getall("Authorization", [])
    scheme, _, secret = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _unauthorized(sentence: str) -> web.Response:
    return error_response(401, "invalid_credential", sentence, {"WWW-Authenticate": "Bearer"})


async def _body(request: web.Request, allowed: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Read a JSON object; an empty body is one without members. `allowed`: its members, where the verb does not check.

    Raises:
        WrongMediaType, TooLarge, SlowRequest, BadRequest: See `read_body`.
        InvalidChange: It is no JSON object, or has another member.
    """
    read_query(request.query.items(), ())
    data = bytes(await read_body(request, _BODY_BYTES))
    if not data:
        return {}
    if request.content_type not in _JSON_TYPES:
        raise WrongMediaType(request.content_type, allowed=_JSON_TYPES[:1])
    try:
        members = read_object(data)  # with a member twice, one of two changes would be made
    except MalformedToken:
        raise InvalidChange("the body is not a JSON object that has each member once") from None
    for name in members:
        if allowed is not None and name not in allowed:
            raise InvalidChange(f"{name[:40]!r} is not a member of the body; allowed are {', '.join(allowed)}")
    return members


async def _no_members(request: web.Request) -> None:
    if await _body(request):
        raise InvalidChange("this path takes no body")


def _number(members: Mapping[str, Any], name: str, default: float) -> float:
    value = members.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MOST_S:
        raise InvalidChange(f"{name} must be a number of seconds")
    return float(value)


def _if_match(request: web.Request) -> int | None:
    """Return the revision that a change is conditional on; None for any."""
    text = request.headers.get("If-Match")
    if text is None or text == "*":
        return None
    digits = text.removeprefix('"').removesuffix('"')
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise InvalidChange(f'If-Match {text[:40]!r} is not the ETag of a key, such as "12"')
    return int(digits)


def _shown(key: Any) -> dict[str, Any]:
    return {**document_of(key), "status": status_of_key(key)}


def _stored(stored: StoredKey) -> web.Response:
    return _json(_shown(stored.key), headers=_etag(stored.revision))


def _with_secret(new: NewSecret, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {**_shown(new.key), "secret": new.secret}
    return _json(body, status=status, headers={**_etag(new.revision), **(headers or {})})


def _etag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _json(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers={**_NO_STORE, **(headers or {})},
    )
