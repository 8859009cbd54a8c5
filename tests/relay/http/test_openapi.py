"""The OpenAPI document, compared with the routes, the code's parameter names, and real answers."""

import re
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from relay.compose import routes_of
from relay.history.start import PARAMETERS as START_PARAMETERS
from relay.http.application import build_app
from relay.http.openapi import document
from relay.http.rest import HISTORY_PARAMETERS
from relay.http.routes import SSE_PARAMETERS, WS_PARAMETERS
from relay.http.security_headers import BASE
from rounds.filter import PARAMETERS as FILTER_PARAMETERS
from tests.relay.conftest import KEY_HEADER, Publish

_NOT_API = {"/", "/docs", "/openapi.json"}


def schema_of(path: str, method: str = "get", status: str = "200") -> dict[str, Any]:
    answer = document()["paths"][path][method]["responses"][status]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema | {"components": document()["components"]}


def check(answer: object, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(answer)


def test_document_is_openapi() -> None:
    """Checked by a third-party validator."""
    validate(document())


def test_every_route_is_described_and_nothing_else() -> None:
    """Every route has a description, and every described path has a route."""
    nothing: Any = None  # routes can be listed without anything behind them
    registry: Any = SimpleNamespace(obstacle=None)
    app = build_app(routes_of(registry, nothing, nothing, nothing), home="<p>")

    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical not in _NOT_API
    } - {("head", "/api/grpc/datastream.DataStream/{method}")}  # Connect has none
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}

    assert routes == described


def test_parameters_of_the_code_are_described() -> None:
    """Every parameter that streams and history read has a description."""
    for path in ("/ws/{game}", "/sse/type/{type}"):
        names = {parameter["name"] for parameter in document()["paths"][path]["get"]["parameters"]}
        assert names >= {*START_PARAMETERS, *FILTER_PARAMETERS}, path
    history = {parameter["name"] for parameter in document()["paths"]["/api/history"]["get"]["parameters"]}
    assert history == {"games", "before", "after", "from", "to", "limit", "corrections", *FILTER_PARAMETERS}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/ws", WS_PARAMETERS),
        ("/ws/{game}", WS_PARAMETERS),
        ("/sse", SSE_PARAMETERS),
        ("/sse/type/{type}", SSE_PARAMETERS),
        ("/api/history", HISTORY_PARAMETERS),
        ("/api/history/{game}", HISTORY_PARAMETERS),
    ],
)
def test_described_parameters_are_accepted(path: str, allowed: tuple[str, ...]) -> None:
    """Unknown parameters are 400, so a described parameter must be one that the path reads."""
    parameters = document()["paths"][path]["get"]["parameters"]
    described = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}

    assert described <= {*allowed, *([] if "{" in path else ["games"])}


@pytest.mark.service
async def test_answers_are_as_described(relay: str, publish: Publish, client: aiohttp.ClientSession) -> None:
    """Real answers, and an error, are valid against their schemas."""
    await publish("crash", 1, 2)

    for path, real in (
        ("/api/games", "/api/games"),
        ("/api/latest/{game}", "/api/latest/crash"),
        ("/api/history/{game}", "/api/history/crash"),
        ("/healthz", "/healthz"),
    ):
        async with client.get(relay + real, headers=KEY_HEADER) as response:
            assert response.status == 200
            check(await response.json(), schema_of(path))
    async with client.post(f"{relay}/api/auth/token", headers=KEY_HEADER) as response:
        check(await response.json(), schema_of("/api/auth/token", "post"))
    async with client.get(f"{relay}/api/latest/nope", headers=KEY_HEADER) as response:
        check(await response.json(), schema_of("/api/latest/{game}", status="default"))
    proxy = "/api/grpc/datastream.DataStream/"
    async with client.post(f"{relay}{proxy}GetLatest", headers=KEY_HEADER, data="{}") as response:
        assert response.status == 415
        check(await response.json(), schema_of(proxy + "{method}", "post", status="default"))


@pytest.mark.service
async def test_headers_are_as_described(relay: str, publish: Publish, client: aiohttp.ClientSession) -> None:
    """Described headers are sent, on GET and HEAD; headers that clients act on are described."""
    await publish("crash", 1, 2, 3)
    usual = {"content-type", "content-length", "content-encoding", "date", "server", "cache-control", "vary"} | {
        name.lower() for name in BASE
    }
    etag = ""
    for method in ("get", "head"):
        for path, real, sent, status in (
            ("/api/history/{game}", "/api/history/crash?limit=1", {}, 200),
            ("/api/latest/{game}", "/api/latest/crash", {}, 200),
            ("/api/latest/{game}", "/api/latest/crash", {"If-None-Match": "*"}, 304),
            ("/api/games", "/api/games", {}, 200),
        ):
            async with client.request(method, relay + real, headers=KEY_HEADER | sent) as response:
                assert response.status == status
                described = document()["paths"][path][method]["responses"][str(status)].get("headers", {})
                came = {name.lower() for name in response.headers} - usual
                assert came == {name.lower() for name in described} - {"x-history-complete"}
                etag = response.headers.get("ETag", etag)
    parameters = document()["paths"]["/api/latest/{game}"]["get"]["parameters"]
    [header] = [one["name"] for one in parameters if one["in"] == "header"]
    async with client.get(f"{relay}/api/latest/crash", headers=KEY_HEADER | {header: etag}) as response:
        assert response.status == 304


@pytest.mark.service
async def test_other_statuses_are_as_described(relay: str, publish: Publish, client: aiohttp.ClientSession) -> None:
    """An event stream that has reached its end answers 204 to the described header."""
    await publish("crash", 1)
    async with client.get(f"{relay}/api/latest/crash", headers=KEY_HEADER) as response:
        cursor = (await response.json())["cursor"]
    operation = document()["paths"]["/sse/{game}"]["get"]
    [header] = [one["name"] for one in operation["parameters"] if one["in"] == "header"]
    url = f"{relay}/sse/crash?to=2026-01-18T10:00:30Z"

    async with client.get(url, headers=KEY_HEADER | {header: cursor}) as response:
        assert response.status == 204
    assert "204" in operation["responses"]


@pytest.mark.service
async def test_page_loads_nothing_from_other_hosts(relay: str, client: aiohttp.ClientSession) -> None:
    """No CDN: the page works without internet access."""
    async with client.get(f"{relay}/docs") as response:
        page = await response.text()

    assert response.content_type == "text/html"
    assert not re.findall(r"(?:src|href)=[\"']?https?://|@import|//cdn", page)
    assert "openapi.json" in page
