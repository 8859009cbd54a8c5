"""Run every command and program of the pages on the protocols, as a reader pastes it."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.clients.live_relay import LiveRelay
from tests.clients.program import Program
from tests.clients.tools import ROOT, node_packages, tool
from tests.docs.pages import blocks, text_of

pytestmark = pytest.mark.service

PROTOCOLS: Final = ("websocket.md", "sse.md", "rest.md")
COMMANDS: Final = [
    (page, block) for page in (*PROTOCOLS, "auth.md") for block in blocks(text_of(page), "sh") if "curl" in block
]
PROGRAMS: Final = [(page, block) for page in PROTOCOLS for block in blocks(text_of(page), "js")]
_NODE: Final = ROOT / "tests" / "clients" / "node"
_BROWSER: Final = """
import ws from 'ws'
import * as sse from 'eventsource'
globalThis.WebSocket = ws
globalThis.EventSource = sse.EventSource ?? sse.default
"""


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda text: text.split("\n")[0][-40:])
def test_command_prints_what_the_page_shows(quiet_demo: LiveRelay, page: str, command: str) -> None:
    """It ends with success and prints what the comment below it shows, up to an ellipsis."""
    tool("curl")
    with Program(["bash", "-c", f"set -e -o pipefail; trap '' PIPE\n{command}"], env=quiet_demo.environment) as program:
        code = program.wait()

    printed = "\n".join(program.printed)
    assert code in (0, 23), printed  # 23: the reader of curl's output has closed it
    shown = re.findall(r"^# (.*)$", command, re.MULTILINE)
    if shown:
        for part in shown[0].split("…"):
            assert part in printed.replace('": "', '":"').replace('", "', '","')
    else:
        assert re.search(r'"(round_id|slug)":', printed), printed


def test_every_command_is_tested() -> None:
    """Commands without curl have their own tests."""
    assert all("curl" in block for page in PROTOCOLS for block in blocks(text_of(page), "sh"))


def test_commands_make_the_keys_that_are_described() -> None:
    """They print a key and its entry on standard output: a private key, then a public one."""
    [command] = [block for block in blocks(text_of("auth.md"), "sh") if "key new" in block]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with Program(["bash", "-c", f"({command}) 2> /dev/null"], env=path) as program:
        assert program.wait() == 0

    private, partner, public, web = program.printed
    assert private.startswith("sk_live_")
    assert partner.startswith("partner=sha256:")
    assert public.startswith("pk_live_")
    assert web.startswith("web=sha256:")


@pytest.mark.parametrize(("page", "program"), PROGRAMS, ids=[page for page, _ in PROGRAMS])
def test_program_prints_rounds(demo: LiveRelay, page: str, program: str) -> None:
    """In Node, with the globals of a browser; only the address and the key differ."""
    node_packages(_NODE)
    assert "http://127.0.0.1:8080" in program
    code = _BROWSER + demo.adapted(program)
    with Program([tool("node"), "--input-type=module", "-e", code], cwd=_NODE) as running:
        running.wait_for("round_id: ", count=2)


def test_a_stream_begins_as_it_is_shown(demo: LiveRelay) -> None:
    """It equals the blocks of sse.md line by line, and its rounds have the same members."""
    shown, refused = blocks(text_of("sse.md"), "text")
    command = 'curl -sN -H "X-API-Key: $API_KEY" "$BASE_URL/sse/crash?last=1" | head -n 5'
    with Program(["bash", "-c", command], env=demo.environment) as program:
        program.wait()

    assert [line.split(":")[0] for line in program.printed] == [line.split(":")[0] for line in shown.splitlines()]
    said = [json.loads(text.removeprefix("data: ")) for text in (shown.splitlines()[3], program.printed[3])]
    assert list(said[0]) == list(said[1])
    assert refused.startswith("retry: ")
