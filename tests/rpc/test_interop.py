"""The interop cases of gRPC that a server of streams can have, by grpc-go: plain, with mutual TLS, and on one port."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from auth.key_secret import DEMO_KEY
from tests.clients.tools import go_program
from tests.relay.conftest import Publish
from tests.rpc.certificates import Authority
from tests.rpc.conftest import StartRelay
from tests.rpc.foreign import INTEROP, descriptor_set, running

pytestmark = pytest.mark.service

_HTTP: Final = {"host": "127.0.0.1", "port": 0, "h2c": True}
_CASES: Final = 18


@pytest.mark.parametrize("way", ["plain", "mutual TLS", "one port"])
async def test_interop_cases(start_relay: StartRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """Each has the result that the page of the cases says."""
    program = await asyncio.to_thread(go_program, INTEROP)
    descriptors, files, grpc = tmp_path / "datastream.binpb", list[str](), dict[str, Any]()
    descriptors.write_bytes(descriptor_set())
    if way == "mutual TLS":
        authority = Authority(tmp_path / "authority", "interop")
        server, client = authority.sign("server"), authority.sign("client")
        files = [str(path) for path in (authority.certificate, client.certificate, client.key)]
        grpc = {
            "tls_cert_file": server.certificate,
            "tls_key_file": server.key,
            "tls_client_ca_file": authority.certificate,
        }
    await publish("crash", 1, 2, 3)
    async with start_relay(http=_HTTP, grpc=grpc) as relay:
        address = urlsplit(relay.url).netloc if way == "one port" else relay.address
        async with running([program, address, DEMO_KEY, str(descriptors), *files]) as client_program:
            await asyncio.to_thread(client_program.wait_for, "^done$")
            results = [json.loads(line) for line in client_program.printed if line.startswith("{")]

    assert len(results) == _CASES
    assert {result["case"]: result["error"] for result in results if result["error"]} == {}
