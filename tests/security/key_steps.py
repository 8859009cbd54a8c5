"""Steps of a full run that make, change, misuse and take back keys, tokens and admin credentials."""

import re
from typing import Any, Final

import aiohttp

from tests.revocation.conftest import id_of
from tests.security.full_run import SECRET, FullRun
from tests.waiting import until

SUBJECT: Final = "user-4711"
_REFUSED: Final = (401, 429)
"""After many wrong credentials of an address, others of it get 429."""


async def status_of(run: FullRun, path: str, **headers: str) -> int:
    """Ask the relay; keep the answer, and return its status. ``_`` in names of headers is ``-``."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession(run.relay.url) as http, http.get(path, headers=sent) as answer:
        whole = answer.content_type == "application/json"
        body = await answer.read() if whole else await answer.content.readany()
        run.received.append((path.partition("?")[0], f"{answer.status} {answer.headers}".encode() + body))
        return answer.status


async def becomes(run: FullRun, key: str, *statuses: int) -> None:
    """Wait until the relay answers a key with one of these statuses."""

    async def has_status() -> bool:
        return await status_of(run, "/api/games", X_API_Key=key) in statuses

    await until(has_status)


async def hand_out_keys(run: FullRun) -> None:
    """Every command of ``stream-relay key`` that makes or changes a key."""
    await becomes(run, run.partner_key, 200)
    page_key = await run.command(
        "key", "create", "page", "--kind", "public", "--origin", "https://example.com", makes=SECRET
    )
    rotated = await run.command("key", "rotate", "partner", "--overlap", "1h", makes=SECRET)
    await becomes(run, rotated, 200)
    await becomes(run, run.partner_key, 200)  # in the overlap
    again = await run.command("key", "rotate", "partner", "--overlap", "0", makes=SECRET)
    await becomes(run, again, 200)
    for old in (run.partner_key, rotated):
        await becomes(run, old, *_REFUSED)
    run.partner_key = again
    await run.command("key", "set", "page", "--game", "crash", "--limit", "links=7", "--json")
    await run.command("key", "disable", "page")
    await becomes(run, page_key, *_REFUSED)
    await run.command("key", "import", RELAY_AUTH_KEYS=f"k={run.relay.stored_key}")
    await run.command("key", "new", "--id", "other", makes=SECRET)
    await run.command("key", "secret", makes=r"(?<=:)[\w+/=-]{32,}")


async def administer(run: FullRun) -> None:
    """The admin API: right and wrong credentials, and secrets in all places of a request."""
    relay_token = await run.token(run.relay.key, name="a token for the admin API")
    async with aiohttp.ClientSession(run.admin_url) as http:

        async def call(method: str, path: str, body: object = None, *, credential: str = "", **headers: str) -> Any:
            sent = {"Authorization": f"Bearer {credential or run.admin_secret}", **headers}
            async with http.request(method, path, json=body, headers=sent) as answer:
                text = await answer.text()
                for secret in re.findall(rf'"secret":"({SECRET})"', text):  # it is shown once
                    text = text.replace(run.secrets.add(f"the secret of {path}", secret), "", 1)
                run.received.append((f"{method} {path[:20]}", f"{answer.status} {answer.headers} {text}".encode()))
                return answer.status

        assert await call("POST", "/admin/keys", {"id": "made"}) == 201
        assert await call("POST", "/admin/keys/made/rotate", {"overlap_s": 60}) == 200
        for secret in (run.relay.key, run.partner_key, relay_token, run.admin_secret):
            for method, path, body in (
                ("POST", "/admin/keys", {"id": secret}),
                ("POST", "/admin/keys", {"id": "other", "name": secret}),
                ("POST", "/admin/keys", {"id": "other", "kind": secret}),
                ("POST", "/admin/keys", {"id": "other", "hash": secret}),
                ("POST", "/admin/keys", {"id": "other", secret: 1}),
                ("PATCH", "/admin/keys/made", {"games": [secret]}),
                ("PATCH", "/admin/keys/made", {"allowed_origins": [secret]}),
                ("PATCH", "/admin/keys/made", {"limits": {secret: 1}}),
                ("PATCH", "/admin/keys/made", {"addresses": [secret]}),
                ("PATCH", "/admin/keys/made", {"expires_at": secret}),
                ("POST", "/admin/keys/made/rotate", {"overlap_s": secret}),
                ("POST", "/admin/revocations", {"token": secret}),
                ("POST", "/admin/revocations", {"subject": secret}),
                ("GET", f"/admin/keys/{secret}", None),
                ("DELETE", f"/admin/keys/{secret}", None),
                ("GET", f"/{secret}", None),
                ("GET", f"/admin/audit?limit={secret}", None),
                ("GET", f"/admin/audit?{secret}=1", None),
            ):
                assert 400 <= await call(method, path, body) < 500, (method, path, body)
            assert await call("PATCH", "/admin/keys/made", {"name": "x"}, **{"If-Match": secret}) == 400
            if secret != run.admin_secret:
                assert await call("GET", "/admin/keys", credential=secret) == 401
        wrong = run.secrets.add("a wrong admin credential", f"admin_{'3e1d' * 16}")
        for _ in range(12):
            assert await call("GET", "/admin/keys", credential=wrong) in _REFUSED
        for path in ("/admin/keys", "/admin/keys/made", "/admin/usage", "/admin/audit?limit=1000", "/openapi.json"):
            assert await call("GET", path) == 200
        assert await call("DELETE", "/admin/keys/made") == 204


async def take_back(run: FullRun) -> None:
    """A token and a subject are revoked while they are used."""
    url = f"{run.relay.url}/api/auth/token"
    tokens = []
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.post(url, headers={"X-API-Key": run.partner_key}, json={"subject": SUBJECT}) as answer:
                tokens.append(run.secrets.add("a token of a subject", str((await answer.json())["token"])))
        async with http.get(f"{run.relay.url}/sse/crash", params={"token": tokens[0]}) as stream:
            assert stream.status == 200
            await run.command("key", "revoke", "--token", id_of(tokens[0]))
            run.received.append(("a revoked stream", await stream.read()))
        async with http.ws_connect(f"{run.relay.url}/ws/crash", protocols=[tokens[1]]) as link:
            await run.command("key", "revoke", "--subject", SUBJECT)
            async for message in link:
                run.received.append(("a revoked WebSocket", str(message.data).encode()))
            assert link.close_code == 4001
    for token in tokens:
        assert await status_of(run, f"/sse/crash?token={token}") in _REFUSED


async def sign_in(run: FullRun) -> None:
    """JWTs of the identity provider: good ones, and ones that are refused for each reason."""
    good = run.identity("a JWT of the provider")
    header, payload, signature = good.split(".")
    wrong = [
        run.identity("an expired JWT", exp=1),
        run.identity("a JWT of another issuer", iss="https://other.example.com/"),
        run.identity("a JWT of another kind", header={"typ": "logout+jwt"}),
        run.identity("a JWT of an unknown key", header={"kid": "p9"}),
        run.identity("a JWT of nobody", sub=""),
        run.secrets.add("an altered JWT", f"{header}.{payload}.{signature[::-1]}"),
    ]
    async with aiohttp.ClientSession(run.relay.url) as http:
        for jwt in (good, *wrong):
            headers = {"Authorization": f"Bearer {jwt}"}
            async with http.post("/api/auth/token", headers=headers) as answer:
                assert (answer.status == 200) == (jwt == good), await answer.text()
                if answer.status == 200:
                    token = run.secrets.add("the token of a user", str((await answer.json())["token"]))
                else:
                    run.received.append(("a refused JWT", await answer.read()))
            for path in ("/api/games", f"/sse/crash?token={jwt}", f"/sse/{jwt}"):
                assert await status_of(run, path, **headers) in (400, *_REFUSED)
    assert await status_of(run, f"/sse/crash?last=1&token={token}") == 200


async def use_up_limits(run: FullRun) -> None:
    """A key is over its limits, on paths that have the key in their URL too."""
    key = await run.command(
        "key", "create", "small", "--limit", "requests_per_min=2", "--limit", "links=1", makes=SECRET
    )
    await becomes(run, key, 200)
    await becomes(run, key, 429)
    async with aiohttp.ClientSession(run.relay.url) as http, http.get("/sse/crash", headers={"X-API-Key": key}):
        assert await status_of(run, f"/sse/crash?api_key={key}") == 200  # says when to come back, and ends
        assert await status_of(run, "/ws/crash", X_API_Key=key) in (426, 429)


async def report(run: FullRun) -> None:
    """What operators look at, when all of it has been reported."""
    for words in (("key", "list"), ("key", "show", "partner", "--json"), ("admin", "list", "--json")):
        await run.command(*words)

    async def is_reported() -> bool:
        audited = await run.command("key", "audit", "--last", "1000", "--json")
        return {"credential.refused", "admin.refused", "key.rotate", "token.revoke", "subject.revoke"} <= set(
            re.findall(r'"action": ?"([a-z_.]+)"', audited)
        )

    await until(is_reported, within_s=40)
    assert '"small"' in await run.command("key", "usage", "--json")
