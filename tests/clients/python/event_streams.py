"""Open one event stream with a library, and print what it delivers, one JSON document a line.

``python event_streams.py LIBRARY URL``. A library that does not reconnect is used in a loop, with the last id.
"""

import asyncio
import json
import sys
import time

import aiohttp
import httpx
import requests
import sseclient
from aiohttp_sse_client.client import EventSource
from httpx_sse import connect_sse


def say(event: str, data: str, last_id: str | None) -> None:
    print(json.dumps({"event": event, "data": data, "lastEventId": last_id}), flush=True)


def with_last_id(last_id: str | None) -> dict[str, str]:
    return {"Last-Event-ID": last_id} if last_id else {}


def sseclient_py(url: str, last_id: str | None) -> str | None:
    """As the given Python client: every event is read as a round."""
    with requests.get(url, headers=with_last_id(last_id), stream=True, timeout=30) as response:
        for event in sseclient.SSEClient(iter(response)).events():
            json.loads(event.data)["game_slug"]
            last_id = event.id
            say(event.event, event.data, last_id)
    return last_id


def sseclient_py_with_events(url: str, last_id: str | None) -> str | None:
    with requests.get(url, headers=with_last_id(last_id), stream=True, timeout=30) as response:
        for event in sseclient.SSEClient(iter(response)).events():
            last_id = event.id or last_id
            say(event.event, event.data, last_id)
    return last_id


def httpx_sse(url: str, last_id: str | None) -> str | None:
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "GET", url, headers=with_last_id(last_id)) as source,
    ):
        for event in source.iter_sse():
            last_id = event.id or last_id
            say(event.event, event.data, last_id)
    return last_id


async def aiohttp_sse_client(url: str) -> None:
    """It reconnects by itself after a complete body, and raises after an incomplete one."""
    async with EventSource(url) as source:
        async for event in source:
            say(event.message or "message", event.data, event.last_event_id)


_PAUSE_S = 0.1
"""Before a reconnect, as a program would."""

LIBRARIES = {"sseclient-py": sseclient_py, "sseclient-py+hello": sseclient_py_with_events, "httpx-sse": httpx_sse}


def main(library: str, url: str) -> None:
    if library == "aiohttp-sse-client":
        asyncio.run(aiohttp_sse_client(url))
        return
    last_id = None
    while True:
        try:
            last_id = LIBRARIES[library](url, last_id)
        except (requests.RequestException, httpx.HTTPError, aiohttp.ClientError) as error:
            say("failed", type(error).__name__, last_id)
        time.sleep(_PAUSE_S)


main(*sys.argv[1:])
