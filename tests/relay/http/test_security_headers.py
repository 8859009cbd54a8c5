"""Headers against misuse of answers by browsers and caches, on every kind of answer of the HTTP port."""

import pytest

from relay.http.security_headers import BASE, page_headers
from tests.relay.conftest import KEY_HEADER
from tests.relay.raw_http import exchange

CALL = "/api/grpc/datastream.DataStream/ListGames"
KEY = f"X-API-Key: {KEY_HEADER['X-API-Key']}"
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)
ANSWERS = {
    "token": ("POST /api/auth/token HTTP/1.1", KEY, "Content-Length: 0"),
    "games": ("GET /api/games HTTP/1.1", KEY),
    "history": ("GET /api/history/crash HTTP/1.1", KEY),
    "proxy": (f"POST {CALL} HTTP/1.1", KEY, "Content-Type: application/json", "Content-Length: 2"),
    "proxy_refused": (f"POST {CALL} HTTP/1.1", "Content-Length: 0"),
    "no_key": ("GET /api/games HTTP/1.1",),
    "no_path": ("GET /nowhere HTTP/1.1",),
    "no_socket": ("GET /ws/crash HTTP/1.1", *UPGRADE),
    "no_stream": ("GET /sse/crash HTTP/1.1",),
    "malformed": ("GET /\x01 HTTP/1.1",),
    "preflight": ("OPTIONS /api/games HTTP/1.1", "Origin: http://page.example"),
    "probe": ("GET /readyz HTTP/1.1",),
    "metrics": ("GET /metrics HTTP/1.1",),
    "docs": ("GET /docs HTTP/1.1",),
    "description": ("GET /openapi.json HTTP/1.1",),
    "stream_at_its_end": ("GET /sse/crash?to=2020-01-01T00:00:00Z HTTP/1.1", KEY),
}  # fmt: skip
CACHED = {"games", "history", "docs", "description", "stream_at_its_end"}


@pytest.mark.service
@pytest.mark.parametrize("name", ANSWERS)
async def test_headers_of_every_answer(relay: str, name: str) -> None:
    """Browsers guess no type and send no URL on; caches keep no token, error or data that a key opened."""
    answer = await exchange(relay, *ANSWERS[name], body=b"{}" if name == "proxy" else b"")

    assert {key: answer.headers.get(key.lower()) for key in BASE} == BASE
    assert answer.headers["server"] == "stream-relay"
    assert ("no-store" in answer.headers["cache-control"]) is (name not in CACHED)
    assert ("content-security-policy" in answer.headers) is (name == "docs")
    # Pages of other origins read the API; the header would keep them from some of it.
    assert ("cross-origin-resource-policy" in answer.headers) is (name == "docs")


def test_policy_of_a_page_allows_its_own_scripts_only() -> None:
    """By hash: what is injected into the page does not run."""
    page = "<style>a</style><script type='module'>\nb()\n</script><p onclick='c()'><STYLE media=print>d</STYLE>"
    policy = page_headers(page, connects_to="'self'")["Content-Security-Policy"]

    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == directives["base-uri"] == directives["frame-ancestors"] == "'none'"
    assert directives["script-src"] == "'sha256-NlXKTQe8YfLmZqnEm5aXK1Lb/1wWgkKgNs+lNRY6yOo='"
    assert directives["style-src"].count("'sha256-") == 2
    assert directives["connect-src"] == "'self'"
    assert "unsafe" not in policy
