"""Every command of docs/grpc.md, as a reader pastes it."""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.clients.tools import ROOT, tool
from tests.rpc.conftest import Publish, Relay
from tests.rpc.foreign import buf, grpcurl, running

pytestmark = pytest.mark.service

_BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/grpc.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
_FIRST, *_COMMANDS = _BLOCKS


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: command.split()[0])
async def test_command_shows_rounds(relay: Relay, publish: Publish, command: str) -> None:
    """It prints a round of the game that it names."""
    await publish("crash", 67890)
    command = command.replace("http://127.0.0.1:8080", relay.url).replace("127.0.0.1:50051", relay.address)
    name = command.split()[0]
    path = {"buf": buf, "grpcurl": grpcurl}.get(name, lambda: tool(name))()
    folders = f"{Path(path).parent}{os.pathsep}{os.environ['PATH']}"
    live = "StreamByGame" in command
    async with running([tool("bash"), "-c", f"export PATH={folders}\n{_FIRST}\nexec {command}"]) as program:
        if live:
            await relay.metric_becomes("relay_links", 1)
            await publish("crash", 67891)
        seen = await asyncio.to_thread(program.wait_for, r'"round_?[iI]d": ?"(\d+)"')

    assert seen[0][1] == ("67891" if live else "67890")
