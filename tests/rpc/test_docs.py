"""Every command of docs/grpc.md, and those of the README for gRPC, run as written."""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.clients.tools import ROOT, tool
from tests.rpc.conftest import GrpcRelay, Publish
from tests.rpc.foreign import buf, grpcurl, running

pytestmark = pytest.mark.service


def _blocks(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


_FIRST, *_COMMANDS = _blocks("docs/grpc.md")
[_BLOCK] = [block for block in _blocks("README.md") if "grpcurl" in block]
_KEY, *_LINES = _BLOCK.splitlines()
_PASTED: Final = [(_FIRST, command) for command in _COMMANDS] + [(_KEY, line) for line in _LINES]


@pytest.mark.parametrize(("before", "command"), _PASTED, ids=[command.split()[0] for _, command in _PASTED])
async def test_command_shows_rounds(relay: GrpcRelay, publish: Publish, before: str, command: str) -> None:
    """It prints a round of its game."""
    await publish("crash", 67890)
    command = command.replace("http://127.0.0.1:8080", relay.url).replace("127.0.0.1:50051", relay.address)
    name = command.split()[0]
    path = {"buf": buf, "grpcurl": grpcurl}.get(name, lambda: tool(name))()
    folders = f"{Path(path).parent}{os.pathsep}{os.environ['PATH']}"
    live = "StreamByGame" in command
    async with running([tool("bash"), "-c", f"export PATH={folders}\n{before}\nexec {command}"]) as program:
        first = asyncio.create_task(asyncio.to_thread(program.wait_for, r'"round_?[iI]d": ?"(\d+)"'))
        number = 67890
        while live and not first.done():  # it shows only what is published after its stream has begun
            number += 1
            await publish("crash", number)
            await asyncio.wait([first], timeout=0.2)
        [seen] = await first

    assert int(seen[1]) in (range(67891, number + 1) if live else [67890])
