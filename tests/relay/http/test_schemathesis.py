"""Requests that schemathesis makes from the OpenAPI document: each answer is one that the document describes."""

from pathlib import Path
from typing import Final

import pytest

from auth.key_secret import DEMO_KEY
from tests.relay.conftest import Publish, StartRelay
from tests.relay.described import ask_all

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
    await publish("crash", 1, 2, 3)
    async with start_relay() as url:
        header = f"X-API-Key: {DEMO_KEY}"
        await ask_all(tmp_path, url, header=header, seed=seed, config=_CONFIG, exclude=_STREAMS)
