"""The examples of docs/resume.md are true."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from auth.key_secret import DEMO_KEY
from relay.history.start import hello
from relay.links.messages import ClientMessage
from relay.live.bounds import Bounds, Gap, GapReason
from tests.clients.tools import tool
from tests.resume.log_writer import LogWriter, make_round

PAGE = (Path(__file__).parents[2] / "docs" / "resume.md").read_text("utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MESSAGES = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


def test_messages_are_those_of_the_code() -> None:
    """Members, their order and their form."""
    bounds = Bounds("k3f9a2", 1, 1042)
    said, gap, action = MESSAGES

    assert list(said.items()) == list(hello(bounds, complete=True).items())
    assert list(gap.items()) == list(Gap(bounds.at(3), bounds.at(900), GapReason.EXPIRED).event().items())
    assert ClientMessage(**action).action == "subscribe"


@pytest.mark.parametrize("reason", list(GapReason))
def test_every_reason_is_explained(reason: GapReason) -> None:
    """A row each in the table of gaps."""
    assert f"| `{reason}` |" in PAGE


@pytest.mark.service
@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
async def test_commands_work_as_they_are(relay: str, log: LogWriter, command: str) -> None:
    """Each prints rounds and ends."""
    tool("curl")
    await log.store(*(make_round(game, number) for number in range(20) for game in ("crash", "dice")))

    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, env=os.environ | {"BASE_URL": relay, "API_KEY": DEMO_KEY}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        printed, _ = await process.communicate()

    assert process.returncode == 0
    assert '"game_slug":"crash"' in printed.decode()
