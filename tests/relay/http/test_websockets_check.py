"""The check that the installed `websockets` reads frames as the relay uses it: after the start, and before clients."""

import asyncio
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
import websockets.frames

from relay.errors import StartError
from relay.http.websocket import frames
from relay.http.websocket.websockets_check import check_websockets
from tests.relay.conftest import StartRelay

PYPROJECT: Final = Path(__file__).parents[3] / "pyproject.toml"


def unlike_ours(*_: object) -> None:
    """A simulated part that takes other arguments than ours."""
    raise TypeError("unexpected argument")


def test_installed_websockets_reads_frames() -> None:
    """Nothing is raised."""
    check_websockets()


def test_websockets_that_lacks_a_part_is_named_with_the_tested_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the part, the installed version, and which versions to install."""
    [tested] = [
        each.removeprefix("websockets")
        for each in tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
        if re.match(r"websockets\W", each)
    ]
    monkeypatch.delitem(sys.modules, frames.__name__)  # so that it is imported again
    monkeypatch.delattr(websockets.frames, "CTRL_OPCODES")

    with pytest.raises(StartError, match="cannot import name 'CTRL_OPCODES'") as refusal:
        check_websockets()

    text = str(refusal.value)
    assert text.startswith(f"websockets {version('websockets')} cannot read frames")
    [named] = re.findall(r"install websockets ([^\s]+), which", text)
    assert set(named.split(",")) == set(tested.split(","))


@pytest.mark.parametrize("part", ["Frame", "Close", "PerMessageDeflate"])
def test_part_that_is_called_otherwise_is_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be imported; only its use fails."""
    monkeypatch.setattr(frames, part, unlike_ours)

    with pytest.raises(StartError, match="websockets"):
        check_websockets()


def test_frames_that_are_read_otherwise_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails; what is read differs."""
    monkeypatch.setattr(frames.FrameReader, "_take", lambda _self, frame: frames.Message(frame.opcode, b""))

    with pytest.raises(StartError, match="frames are read as"):
        check_websockets()


async def test_relay_ends_on_a_websockets_that_lacks_a_part(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check it would stay ready, and answer every WebSocket with 500."""
    monkeypatch.setattr(frames, "Frame", unlike_ours)

    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.timeout(20), start_relay(ready=False):
            await asyncio.Event().wait()

    assert failed.group_contains(StartError, match="cannot read frames")


@pytest.mark.service
def test_websockets_is_imported_when_the_relay_is_ready() -> None:
    """And not before: the start does not wait for it."""
    program = """
import asyncio, sys
import relay.serve
from relay.http.websocket.websockets_check import check_websockets_after

async def main():
    ready, asked = asyncio.Event(), asyncio.Event()
    async def wait():
        asked.set()
        await ready.wait()
    check = asyncio.create_task(check_websockets_after(wait))
    await asked.wait()
    print("websockets" in sys.modules)
    ready.set()
    await check
    print("websockets" in sys.modules)

asyncio.run(main())
"""

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    assert ran.stdout.split() == ["False", "True"]
