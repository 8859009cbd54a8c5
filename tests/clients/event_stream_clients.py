"""Foreign clients of event streams: npm `eventsource` 1 to 4, Python, Go and Java libraries, each as a program.

Owns how each is started. They print one JSON document per event; see the folders `node`, `python`, `go` and `java`.
"""

import asyncio
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from auth.key_secret import DEMO_KEY
from tests.clients.program import Program
from tests.clients.tools import ROOT, go_modules, node_packages, tool

_HERE: Final = Path(__file__).parent

NODE: Final = ("eventsource1", "eventsource2", "eventsource", "eventsource4")
PYTHON: Final = ("sseclient-py", "httpx-sse", "aiohttp-sse-client")
GO: Final = ("r3labs", "go-sse")
_JAVA_FOLDER: Final = ROOT / ".cache" / "java-clients"
JAVA: Final = ("okhttp",) if _JAVA_FOLDER.is_dir() else ()
"""Installed by ``foreign.sh``."""
LIBRARIES: Final = (*NODE, *PYTHON, *GO, *JAVA)


def start(library: str, url: str) -> Program:
    """Start a client of the event stream at `url`, with the demo's key in it."""
    url = f"{url}{'&' if '?' in url else '?'}api_key={DEMO_KEY}"
    if library in NODE:
        node_packages(_HERE / "node")
        return Program([tool("node"), "eventsource.js", url, library], cwd=_HERE / "node")
    if library in GO:
        return Program([_go_clients(), library, url])
    if library in JAVA:
        return Program([tool("java"), "-cp", f"{_JAVA_FOLDER}:{_JAVA_FOLDER}/lib/*", "OkHttp", url])
    name = library if "hello=1" not in url or library != "sseclient-py" else f"{library}+hello"
    return Program([sys.executable, "event_streams.py", name, url], cwd=_HERE / "python")


@cache
def _go_clients() -> str:
    """Build the Go clients, once per run; return the path of the program."""
    go_modules(_HERE / "go")
    program = ROOT / ".cache" / "bin" / "event-stream-clients"
    subprocess.run([tool("go"), "build", "-o", str(program), "."], cwd=_HERE / "go", check=True, timeout=250)
    return str(program)


async def wait_for_round(client: Program, round_id: int) -> None:
    """Wait until a client has delivered a round."""
    await asyncio.to_thread(client.wait_for, rf'"event": ?"message".*\\"round_id\\":{round_id},')


def delivered(client: Program) -> list[dict[str, Any]]:
    """Return the events that a client has delivered so far, without what it says of its connection."""
    said = [json.loads(line) for line in client.printed if line.startswith("{")]
    return [event for event in said if event["event"] not in ("open", "comes_back", "failed")]


def round_ids(client: Program) -> list[int]:
    """Return the ids of the rounds that a client has delivered so far."""
    return [json.loads(event["data"])["round_id"] for event in delivered(client) if event["event"] == "message"]
