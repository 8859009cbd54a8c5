"""Clients that leave at the worst moment are no errors: nothing is logged of them but the links that they had."""

import asyncio
import base64
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import Publish
from tests.relay.raw_http import connection
from tests.relay.serving import Serving, serving
from tests.rpc.envelopes import envelope
from tests.rpc.raw_calls import raw_calls

pytestmark = pytest.mark.service

EACH = 20
ANSWERING_S = 0.03
"""A moment in which the relay answers: it is part of the situation, and any length of it must do."""
PROXY = "/api/grpc/datastream.DataStream/"
USUAL = {
    "relay_listening",
    "open_files_limit",
    "log_connected",
    "feed_started",
    "feed_stopped",
    "client_refused",
    "link_opened",
    "link_closed",
    "stop_requested",
    "drain_started",
    "listeners_closed",
    "drain_finished",
}


def reset(client: socket.socket) -> None:
    """Close with a reset: what the client has not read is lost."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


ENDS: list[Callable[[socket.socket], None]] = [reset, socket.socket.close]


def get(target: str, key: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", f"X-API-Key: {key}", *more, "", ""]).encode()


def post(target: str, key: str, kind: str, body: bytes, *more: str, size: int | None = None) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: x", f"X-API-Key: {key}", f"Content-Type: {kind}", *more]
    if not any(line.startswith("Transfer-Encoding") for line in more):
        lines.append(f"Content-Length: {len(body) if size is None else size}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def http_requests(key: str) -> dict[str, bytes]:
    """Requests, whole and in part, by name."""
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    websocket = get("/ws/crash", key, *upgrade, f"Sec-WebSocket-Key: {'A' * 22}==")
    connect, web, chunked = "application/connect+json", "application/grpc-web+proto", "Transfer-Encoding: chunked"
    unary = post(f"{PROXY}ListGames", key, "application/json", b"{}")
    return {
        "nothing": b"",
        "a part of a head": b"GET /sse/crash HTTP/1.1\r\nHo",
        "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100),
        "handshake": websocket,
        "handshake and frame": websocket + b"\x81\x85abcd12345",
        "event stream": get("/sse/crash", key),
        "replay of events": get("/sse?last=1000", key),
        "REST": get("/api/history?limit=1000", key) * 10,
        "metrics": get("/metrics", key),
        "token, body unfinished": post("/api/auth/token", key, "text/plain", b"abc", size=5000),
        "call": unary * 10,
        "call, body unfinished": post(f"{PROXY}ListGames", key, "application/json", b"{", size=5000),
        "call, chunk unfinished": post(f"{PROXY}ListGames", key, "application/json", b"5\r\nab", chunked),
        "call that expects": post(f"{PROXY}ListGames", key, "application/json", b"", "Expect: 100-continue", size=50),
        "Connect stream": post(f"{PROXY}StreamAll", key, connect, envelope(b"{}")),
        "Connect replay": post(f"{PROXY}Replay", key, connect, envelope(b"{}")),
        "gRPC-Web stream": post(f"{PROXY}StreamAll", key, web, envelope(b"")),
        "gRPC-Web text": post(f"{PROXY}StreamAll", key, "application/grpc-web-text", base64.b64encode(envelope(b""))),
        "gRPC-Web replay": post(f"{PROXY}Replay", key, web, envelope(b"")),
    }


def http2(key: str, method: str, body: bytes, *, cancel: bool = False, whole: bool = True) -> bytes:
    """Ten calls on one HTTP/2 connection; `cancel`: each is cancelled at once."""
    body = body if whole else body[:3]
    return raw_calls(f"/{method}", body, count=10, key=key, ended=whole, cancelled=cancel)


def grpc_requests(key: str) -> dict[str, bytes]:
    service = "datastream.DataStream/"
    stream = envelope(pb.StreamAllRequest().SerializeToString())
    page = envelope(pb.GetHistoryRequest(limit=1000).SerializeToString())
    replay = envelope(pb.ReplayRequest().SerializeToString())
    return {
        "nothing": b"",
        "garbage": os.urandom(300),
        "a part of a preface": b"PRI * HTT",
        "stream": http2(key, f"{service}StreamAll", stream),
        "stream, cancelled": http2(key, f"{service}StreamAll", stream, cancel=True),
        "replay": http2(key, f"{service}Replay", replay),
        "replay, cancelled": http2(key, f"{service}Replay", replay, cancel=True),
        "answer": http2(key, f"{service}GetHistory", page),
        "answer, cancelled": http2(key, f"{service}GetHistory", page, cancel=True),
        "message unfinished": http2(key, f"{service}GetHistory", page, whole=False),
        "health": http2(key, "grpc.health.v1.Health/Watch", envelope(b"")),
    }


def come_and_leave(port: int, request: bytes) -> None:
    """Leave before the relay has read the request, and while it answers."""
    for end in ENDS:
        for _ in range(EACH):
            end(requesting(port, request))
        clients = [requesting(port, request) for _ in range(EACH)]
        time.sleep(ANSWERING_S)
        for client in clients:
            end(client)


def requesting(port: int, request: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(request)
    return client


@asynccontextmanager
async def following(relay: Serving) -> AsyncIterator[None]:
    """Hold a stream open, so that the relay follows the log and answers at once."""
    async with connection(relay.url) as link:
        await link.send(get("/sse/dice", relay.key))
        await link.until(b"\r\n\r\n")
        yield


async def unusual_events(relay: Serving) -> list[str]:
    """Stop the relay; return the names of the other events that it logged, and lines that are no events."""
    assert await asyncio.to_thread(relay.stop) == 0
    names = [json.loads(line)["event"] if line.startswith("{") else line for line in relay.printed]
    return [name for name in names if name not in USUAL]


async def test_http_clients_that_leave_are_not_logged(nats: NatsServer, publish: Publish) -> None:
    """In a handshake, an answer, a body, a stream; with a reset and without one."""
    await publish("crash", *range(1, 500))
    async with serving(nats.url) as relay, following(relay):
        port = int(relay.url.rpartition(":")[2])
        for request in http_requests(relay.key).values():
            await asyncio.to_thread(come_and_leave, port, request)

        assert await unusual_events(relay) == []


async def test_grpc_clients_that_leave_are_not_logged(nats: NatsServer, publish: Publish) -> None:
    """In a preface, a message, an answer, a stream; cancelled, with a reset and without one."""
    await publish("crash", *range(1, 500))
    async with serving(nats.url, RELAY_GRPC_HOST="127.0.0.1") as relay, following(relay):
        [line] = [line for line in relay.printed if "relay_listening" in line]
        for request in grpc_requests(relay.key).values():
            await asyncio.to_thread(come_and_leave, json.loads(line)["grpc_port"], request)

        assert await unusual_events(relay) == []
