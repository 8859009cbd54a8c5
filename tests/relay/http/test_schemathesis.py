"""Requests that schemathesis makes from the OpenAPI document: each answer is one that the document describes."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from auth.key_secret import DEMO_KEY
from tests.clients.tools import python_program
from tests.relay.conftest import Publish, StartRelay

_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
_CONFIG: Final = """
[checks.not_a_server_error]
# Connect answers unknown methods and encodings with 501: https://connectrpc.com/docs/protocol#http-to-error-code
expected-statuses = ["2xx", "3xx", "4xx", 501]
"""
_STREAMS: Final = "^/(sse|ws)"
"""They do not end; tests/relay/http has tests of their own."""


@pytest.mark.service
@pytest.mark.parametrize("seed", [1])
async def test_no_request_gets_an_answer_that_is_not_described(
    seed: int, start_relay: StartRelay, publish: Publish, tmp_path: Path
) -> None:
    """Valid and invalid values of every parameter, header and body: no 5xx, and no undocumented status."""
    program = await asyncio.to_thread(python_program, "schemathesis")
    (tmp_path / "schemathesis.toml").write_text(_CONFIG)
    await publish("crash", 1, 2, 3)
    async with start_relay() as url:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--config-file", str(tmp_path / "schemathesis.toml"), "run", f"{url}/openapi.json"),
            *("--header", f"X-API-Key: {DEMO_KEY}", "--checks", ",".join(_CHECKS)),
            *("--exclude-path-regex", _STREAMS, "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "15", "--seed", str(seed), "--request-timeout", "10", "--warnings", "off"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()

    assert process.returncode == 0, out.decode()[-12000:]
    assert b"passed" in out
