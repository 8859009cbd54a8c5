"""The admin API on a real NATS: every path, bad input, revisions, credentials, and the description of all of it."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from relay.admin.administration import Administration
from relay.admin.api.admin_openapi import document
from relay.admin.api.admin_routes import AdminRoutes
from relay.admin.api.attempts import ALLOWED
from relay.http.monitoring.probes import Probes
from roundlog.buckets.bucket import Bucket
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.relay.admin.conftest import TESTER, AdminClient, Answer, StartAdmin
from tests.rpc.certificates import Authority
from tests.waiting import until

PUBLIC: Final = {"id": "web", "kind": "public", "allowed_origins": ["https://a.example"], "games": ["crash"]}


def assert_described(answer: Answer, path: str, method: str) -> None:
    """Assert that an answer is as the description says."""
    responses = document()["paths"][path][method]["responses"]
    described = responses.get(str(answer.status), responses["default"])
    if "content" in described:
        schema = described["content"]["application/json"]["schema"] | {"components": document()["components"]}
        Draft202012Validator(schema).validate(answer.body)
    for name in described.get("headers", {}):
        assert name in answer.headers


def test_document_is_openapi() -> None:
    """Checked by a third-party validator."""
    validate(document())


def test_every_route_is_described_and_nothing_else() -> None:
    """Every route has a description, and every described path has a route."""
    nothing: Any = None
    table = [*AdminRoutes(nothing).table(), *Probes(lambda: None).table()]
    routes = {(route.method.lower(), route.path) for route in table if route.path != "/openapi.json"}
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}

    assert described == routes | {("head", path) for method, path in routes if method == "get"}


@pytest.mark.service
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/keys/web", '{"disabled":true,"disabled":false}'),
        ("/admin/keys/web", '{"limits":{"links":1,"links":2}}'),
        ("/admin/keys/web", '{"limits":{"links_per_s":1e400}}'),
        ("/admin/keys/web", '{"name":NaN}'),
        ("/admin/keys/web/rotate", '{"overlap_s":1' + "0" * 400 + "}"),
        ("/admin/revocations", '{"subject":"u","for_s":1' + "0" * 400 + "}"),
        ("/admin/revocations", '{"subject":"u","for_s":1e400}'),
    ],
)
async def test_body_that_is_ambiguous_or_extreme_changes_nothing(admin: AdminClient, path: str, body: str) -> None:
    """A member twice, and numbers that are no time or limit."""
    await admin("POST", "/admin/keys", {"id": "web"})
    method = "PATCH" if path.endswith("/web") else "POST"
    answer = await admin(method, path, body, Content_Type="application/json")

    assert (answer.status, answer.body["code"]) == (400, "bad_request")


@pytest.mark.service
@pytest.mark.parametrize("key_id", ["*", "%3E", "w*", "web.*", "we%3Db", "%20", "..%2Fkeys"])
async def test_path_that_names_no_key_changes_none(admin: AdminClient, key_id: str) -> None:
    """Not the wildcards of NATS either."""
    await admin("POST", "/admin/keys", {"id": "web"})
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/disable"), ("POST", "/rotate")):
        answer = await admin(method, f"/admin/keys/{key_id}{path}", {} if method == "PATCH" else None)
        assert (answer.status, answer.body["code"]) == (404, "unknown_key")

    assert [key["status"] for key in (await admin("GET", "/admin/keys")).body["keys"]] == ["active"]


@pytest.mark.service
async def test_a_key_from_its_creation_to_its_end(admin: AdminClient, parts: Administration) -> None:
    """Every path works, answers as described, and changes what the store holds; each change is in the audit log."""
    created = await admin("POST", "/admin/keys", PUBLIC | {"name": "Web"})
    assert created.status == 201
    assert_described(created, "/admin/keys", "post")
    secret = created.body["secret"]
    assert created.headers["Location"] == "/admin/keys/web"
    steps: list[tuple[str, str, str, object, Any]] = [
        ("GET", "/admin/keys", "/admin/keys", None, lambda body: [key["id"] for key in body["keys"]] == ["web"]),
        ("GET", "/admin/keys/{id}", "/admin/keys/web", None, lambda body: body["name"] == "Web"),
        ("PATCH", "/admin/keys/{id}", "/admin/keys/web", {"games": None}, lambda body: body["games"] is None),
        (
            "POST",
            "/admin/keys/{id}/disable",
            "/admin/keys/web/disable",
            None,
            lambda body: body["status"] == "disabled",
        ),
        ("POST", "/admin/keys/{id}/enable", "/admin/keys/web/enable", None, lambda body: body["status"] == "active"),
        (
            "POST",
            "/admin/keys/{id}/rotate",
            "/admin/keys/web/rotate",
            {"overlap_s": 60},
            lambda body: body["secret"] != secret and len(body["secrets"]) == 2,
        ),
        ("GET", "/admin/keys/{id}/usage", "/admin/keys/web/usage?hours=2", None, lambda body: body["hours"] == []),
        ("GET", "/admin/usage", "/admin/usage", None, lambda body: body["keys"] == []),
        ("POST", "/admin/revocations", "/admin/revocations", {"subject": "u", "for_s": 60}, lambda body: body["until"]),
    ]
    for method, described, path, body, holds in steps:
        answer = await admin(method, path, body)
        assert answer.status < 300, (path, answer)
        assert_described(answer, described, method.lower())
        assert holds(answer.body), (path, answer.body)

    assert (await admin("DELETE", "/admin/keys/web")).status == 204
    gone = await admin("GET", "/admin/keys/web")
    assert (gone.status, gone.body["code"]) == (404, "unknown_key")
    assert_described(gone, "/admin/keys/{id}", "get")

    audit = await admin("GET", "/admin/audit?limit=100")
    assert_described(audit, "/admin/audit", "get")
    assert [(entry["action"], entry["actor"]) for entry in audit.body["entries"]] == [
        ("admin.create", "os_user:tester@here"),
        ("key.create", "admin:ops"),
        ("key.set", "admin:ops"),
        ("key.disable", "admin:ops"),
        ("key.enable", "admin:ops"),
        ("key.rotate", "admin:ops"),
        ("subject.revoke", "admin:ops"),
        ("key.delete", "admin:ops"),
    ]
    text = json.dumps(audit.body)
    assert {entry["address"] for entry in audit.body["entries"][1:]} == {"127.0.0.1"}
    assert secret[12:] not in text
    assert str(admin.secret)[10:] not in text
    assert "sha256" not in text


BAD: Final[list[tuple[str, str, object, dict[str, str], int, str]]] = [
    ("POST", "/admin/keys", {}, {}, 400, "id is missing"),
    ("POST", "/admin/keys", {"id": "b", "krash": 1}, {}, 400, "'krash' is not a member"),
    ("POST", "/admin/keys", {"id": "b", "games": ["krash"]}, {}, 400, "not in the catalogue"),
    ("POST", "/admin/keys", {"id": "web"}, {}, 409, "key 'web' exists already"),
    ("POST", "/admin/keys?x=1", {"id": "b"}, {}, 400, "x"),
    ("POST", "/admin/keys", "[1]", {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", "{", {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", b"\xff", {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", "[" * 9000, {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", b'{"id":' + b"[" * 9000, {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", b'{"id":"\xff"}', {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", b'{"\xc3":1}', {"Content_Type": "application/json"}, 400, "not a JSON object"),
    ("POST", "/admin/keys", "id=b", {"Content_Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
    ("POST", "/admin/keys", " " * 20_000, {"Content_Type": "application/json"}, 413, "16384 bytes"),
    ("PATCH", "/admin/keys/web", {"kind": "private"}, {}, 400, "'kind' is not a member"),
    ("PATCH", "/admin/keys/nope", {"name": "x"}, {}, 404, "there is no key 'nope'; there are: web"),
    ("PATCH", "/admin/keys/web", {"name": "x"}, {"If_Match": '"99"'}, 412, "another revision"),
    ("PATCH", "/admin/keys/web", {"name": "x"}, {"If_Match": "new"}, 400, "If-Match 'new' is not the ETag"),
    ("DELETE", "/admin/keys/web", None, {"If_Match": '"99"'}, 412, "another revision"),
    ("DELETE", "/admin/keys/web", {"sure": True}, {}, 400, "takes no body"),
    ("POST", "/admin/keys/web/rotate", {"overlap_s": "1d"}, {}, 400, "overlap_s must be a number of seconds"),
    ("POST", "/admin/keys/web/rotate", {"overlap": 1}, {}, 400, "allowed are overlap_s"),
    ("POST", "/admin/keys/web/rotate", {"overlap_s": -1}, {}, 400, "from 0 to 90 days"),
    ("POST", "/admin/keys/web/rotate", {"overlap_s": 10**400}, {}, 400, "overlap_s must be a number of seconds"),
    ("POST", "/admin/keys/web/enable", {"x": 1}, {}, 400, "takes no body"),
    ("GET", "/admin/keys/web/usage?hours=0", None, {}, 400, "hours"),
    ("GET", "/admin/keys/nope/usage", None, {}, 404, "there is no key"),
    ("POST", "/admin/revocations", {}, {}, 400, "give either token (its jti) or subject"),
    ("POST", "/admin/revocations", {"token": "a", "subject": "b"}, {}, 400, "give either"),
    ("POST", "/admin/revocations", {"subject": "u", "for_s": 10**400}, {}, 400, "for_s must be a number of seconds"),
    ("POST", "/admin/revocations", {"subject": f"sk_live_{'7' * 64}"}, {}, 400, "holds a secret"),
    ("POST", "/admin/revocations", {"token": f"admin_{'7' * 64}"}, {}, 400, "holds a secret"),
    ("POST", "/admin/revocations", {"token": 7}, {}, 400, "as text"),
    ("GET", "/admin/audit?limit=0", None, {}, 400, "limit"),
    ("GET", "/admin/audit?refused=maybe", None, {}, 400, "refused"),
    ("GET", "/admin/nope", None, {}, 404, "/openapi.json lists all paths"),
    ("PUT", "/admin/keys/web", {}, {}, 405, "allowed: DELETE, GET, HEAD, PATCH"),
    ("GET", "/admin/keys/%2e%2e%2fweb", None, {}, 404, "there is no"),
    ("GET", "/admin/keys/" + "a.*" * 50, None, {}, 404, "there is no key"),
]


@pytest.mark.service
async def test_bad_input_is_refused_with_the_error_body(admin: AdminClient, parts: Administration) -> None:
    """The status, one sentence and a code; the key stays as it is, and no change is recorded."""
    await admin("POST", "/admin/keys", PUBLIC)
    before = await parts.keys(TESTER).get("web")

    for method, path, body, headers, status, sentence in BAD:
        answer = await admin(method, path, body, **headers)
        assert answer.status == status, (method, path, answer)
        assert sentence in answer.body["error"], (method, path, answer.body)
        assert answer.body["success"] is False
        assert answer.body["code"]

    assert await parts.keys(TESTER).get("web") == before
    assert [entry.action for entry in await parts.audit.newest(9, refused=False)] == ["admin.create", "key.create"]


@pytest.mark.service
@pytest.mark.parametrize(
    "pattern", ["*", "%3E", "web.*", "w*", "a=2Eb", "a%20b", "%00", "%0D%0Aweb", "%F0%9F%98%80", "k" * 3000]
)
async def test_an_id_is_never_a_pattern_of_others(pattern: str, admin: AdminClient) -> None:
    """What no key can be named is unknown to every verb, also where it would mean several entries of the store."""
    for key_id in ("web", "a.b"):
        await admin("POST", "/admin/keys", {"id": key_id})
    path = f"/admin/keys/{pattern}"
    answers = [
        await admin("GET", path),
        await admin("GET", f"{path}/usage"),
        await admin("PATCH", path, {"name": "x"}),
        await admin("POST", f"{path}/rotate"),
        await admin("POST", f"{path}/disable"),
        await admin("POST", f"{path}/enable"),
        await admin("DELETE", path),
    ]

    assert {(answer.status, answer.body["code"]) for answer in answers} == {(404, "unknown_key")}
    keys = (await admin("GET", "/admin/keys")).body["keys"]
    assert [(key["id"], key["status"], len(key["secrets"])) for key in keys] == [
        ("a.b", "active", 1),
        ("web", "active", 1),
    ]
    audited = (await admin("GET", "/admin/audit")).body["entries"]
    assert [entry["action"] for entry in audited] == ["admin.create", "key.create", "key.create"]


@pytest.mark.service
async def test_an_entry_that_is_no_key_can_only_be_deleted(admin: AdminClient, nats: NatsServer) -> None:
    """Each verb says so with a sentence; a new key of this id is refused until it is deleted."""
    settings = LogSettings(url=nats.url)
    await admin("POST", "/admin/keys", {"id": "web"})
    async with connect(settings, name="test") as opened:
        await Bucket(opened, "keys").put("key.broken", b'{"format":1,"newer":true}')
    for method, path in (("GET", "broken"), ("PATCH", "broken"), ("POST", "broken/disable"), ("POST", "broken/rotate")):
        answer = await admin(method, f"/admin/keys/{path}")
        assert (answer.status, answer.body["code"]) == (409, "unreadable_key"), answer
        assert "delete the key" in answer.body["error"]
    assert (await admin("POST", "/admin/keys", {"id": "broken"})).status == 409
    assert (await admin("DELETE", "/admin/keys/broken")).status == 204
    assert (await admin("GET", "/admin/keys/broken")).status == 404
    assert (await admin("POST", "/admin/keys", {"id": "broken"})).status == 201


@pytest.mark.service
async def test_change_is_made_in_its_revision_only(admin: AdminClient) -> None:
    """Of two changes with the same ETag one is made. Without If-Match, both are."""
    created = await admin("POST", "/admin/keys", PUBLIC)
    etag = created.headers["ETag"]

    answers = await asyncio.gather(
        *(admin("PATCH", "/admin/keys/web", {"name": name}, If_Match=etag) for name in ("a", "b", "c"))
    )
    free = await asyncio.gather(
        admin("PATCH", "/admin/keys/web", {"name": "d"}), admin("PATCH", "/admin/keys/web", {"disabled": True})
    )

    assert sorted(answer.status for answer in answers) == [200, 412, 412]
    assert [answer.status for answer in free] == [200, 200]
    shown = await admin("GET", "/admin/keys/web")
    assert (shown.body["name"], shown.body["disabled"]) == ("d", True)
    assert shown.headers["ETag"] != etag


@pytest.mark.service
async def test_only_a_valid_credential_is_accepted(admin: AdminClient, parts: Administration) -> None:
    """No other form, kind or key opens the port; a disabled one is refused within a second; each try is audited."""
    key = await admin("POST", "/admin/keys", {"id": "a"})
    good = admin.secret
    wrong: list[str | None] = [
        None,
        "",
        "admin_" + "0" * 64,
        "admin_",
        str(good)[:-1],
        key.body["secret"],
        str(good).upper(),
    ]
    for secret in wrong:
        admin.secret = secret
        answer = await admin("GET", "/admin/keys")
        assert (answer.status, answer.body["code"]) == (401, "invalid_credential"), secret
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await admin("GET", "/openapi.json")).status == 401
    admin.secret = None
    assert (await admin("GET", "/healthz")).status == 200
    assert (await admin("GET", "/admin/keys", X_API_Key=str(good))).status == 401
    admin.secret = good
    assert (await admin("GET", "/openapi.json")).body == json.loads(json.dumps(document()))

    _, looks = await parts.admins.create(TESTER, "looks", read_only=True)
    admin.secret = looks

    async def accepted() -> bool:
        return (await admin("GET", "/admin/keys")).status == 200

    await until(accepted, within_s=1)
    assert (await admin("POST", "/admin/keys", {"id": "b"})).body["code"] == "not_allowed"
    await parts.admins.disable(TESTER, "looks", disabled=True)

    async def refused() -> bool:
        return (await admin("GET", "/admin/keys")).status in (401, 429)

    await until(refused, within_s=1)
    entries = await parts.audit.newest(20, refused=True)
    tried = [entry for entry in entries if entry.action == "admin.refused"]
    assert tried
    assert {entry.address for entry in tried} == {"127.0.0.1"}
    assert str(good)[12:] not in str(entries)


@pytest.mark.service
async def test_wrong_credentials_are_limited_and_the_right_one_is_not(admin: AdminClient) -> None:
    """After ten in a minute the answer is 429; an attacker behind the same address locks nobody out."""
    good, admin.secret = admin.secret, "admin_" + "0" * 64
    statuses = [(await admin("GET", "/admin/keys")).status for _ in range(ALLOWED + 3)]
    limited = await admin("GET", "/admin/keys")
    admin.secret = good

    assert statuses == [401] * ALLOWED + [429] * 3
    assert int(limited.headers["Retry-After"]) <= 60
    assert limited.body["error"] == "Too many requests, please slow down"
    assert (await admin("GET", "/admin/keys")).status == 200


@pytest.mark.service
async def test_answers_are_not_for_pages_and_caches(admin: AdminClient) -> None:
    """No CORS, no storing, no sniffing, no framing: on success and on errors."""
    for path in ("/admin/keys", "/admin/nope"):
        answer = await admin("GET", path, Origin="https://evil.example")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    preflight = await admin("OPTIONS", "/admin/keys", Origin="https://evil.example")
    assert preflight.status == 405


@pytest.mark.service
async def test_store_that_is_away_is_503_and_comes_back(
    nats: NatsServer, admin: AdminClient, parts: Administration
) -> None:
    """The sentence says what cannot be reached; the process stays, and works when NATS is back."""
    await admin("POST", "/admin/keys", PUBLIC)
    await nats.stop()

    for method, path, body in (("GET", "/admin/keys", None), ("POST", "/admin/keys/web/disable", None)):
        answer = await admin(method, path, body)
        assert (answer.status, answer.body["success"]) == (503, False)
        assert answer.headers["Retry-After"] == "1"
    await nats.start()

    async def works() -> bool:
        return (await admin("POST", "/admin/keys/web/disable")).status == 200

    await until(works, within_s=20)


@pytest.mark.service
async def test_client_needs_a_certificate_and_a_credential_and_files_are_reloaded(
    parts: Administration, start_admin: StartAdmin, tmp_path: Path
) -> None:
    """With a client CA, a client without its certificate gets no answer; a renewed certificate is used at once."""
    ours, others = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "others", "others")
    server, renewed, known, unknown = ours.sign("server"), ours.sign("renewed"), ours.sign("c"), others.sign("c")
    _, secret = await parts.admins.create(TESTER, "ops")
    tls = {
        "tls_cert_file": server.certificate,
        "tls_key_file": server.key,
        "tls_client_ca_file": ours.certificate,
    }

    async def status(pair: Any, secret: str | None) -> int | None:
        context = ssl.create_default_context(cafile=ours.certificate)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            try:
                return (await AdminClient(session, url, secret)("GET", "/admin/keys")).status
            except (aiohttp.ClientError, OSError):
                return None

    async with start_admin(admin={"port": 0, **tls}) as url:
        assert url.startswith("https://127.0.0.1:")
        assert await status(known, secret) == 200
        assert await status(known, None) == 401
        assert await status(None, secret) is None
        assert await status(unknown, secret) is None

        server.replace_by(renewed)
        port = int(url.rpartition(":")[2])
        certificate = await asyncio.to_thread(_certificate, port, ours, known)
        assert b"renewed" in certificate
        assert await status(known, secret) == 200
        assert await status(unknown, secret) is None


def _certificate(port: int, authority: Authority, pair: Any) -> bytes:
    import socket

    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(pair.certificate, pair.key)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""
