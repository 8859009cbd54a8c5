"""Start ``stream-relay dev``, read a round by each protocol, and stop it, to check an installation.

    python -m tests.smoke [COMMAND [DEV-ARGUMENT ...]]

COMMAND is the ``stream-relay`` to run, by default the one beside this interpreter; the arguments are for its ``dev``.
The exit code is 0 when all of it worked. Not a test of the suite: `.ci/versions` runs it, and it needs nothing but
Python, so that it can check an installed wheel.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.clients.program import Program

_START_S: Final = 60.0
"""For all parts to be up, PostgreSQL among them."""
_ROUND_S: Final = 30.0
_STOP_S: Final = 15.0


def main(arguments: list[str]) -> int:
    """Check one installation; return the exit code, and print what works or the first failure."""
    command = arguments[0] if arguments else str(Path(sys.executable).with_name("stream-relay"))
    try:
        with tempfile.TemporaryDirectory() as elsewhere:  # so that no package of the source tree is imported
            _try(str(Path(command).absolute()), arguments[1:], Path(elsewhere))
    except (
        AssertionError,
        LookupError,
        OSError,
        ValueError,
        http.client.HTTPException,
        subprocess.SubprocessError,
    ) as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    return 0


def _try(command: str, arguments: list[str], folder: Path) -> None:
    with Program([command, "dev", "--port", "0", *arguments], cwd=folder) as relay:
        [key] = relay.wait_for(r"X-API-Key: (\w+)", within_s=_START_S)
        [grpc] = relay.wait_for(r"grpc://127\.0\.0\.1:\d+")
        relay.wait_for("Ctrl-C stops everything")
        url = key.string.split()[-1].removesuffix("/sse/crash")

        shown = {"SSE": _read_event(url, key[1])}
        for name, via, at in (("WebSocket", "ws", url), ("gRPC", "grpc", grpc[0])):
            with Program([command, "tail", "--via", via, "--url", at, "-n", "1"], cwd=folder) as tail:
                [line] = tail.wait_for(r"^\{.*\}$", within_s=_ROUND_S)
                shown[name] = _name(line[0])
                assert tail.wait() == 0, f"tail --via {via} printed a round and then failed: {tail.printed}"
        os.kill(relay.pid, signal.SIGTERM)
        code = relay.wait(within_s=_STOP_S)
        printed = "\n".join(relay.printed)
        assert code == 0, f"SIGTERM ended the relay with exit code {code}; it printed:\n{printed}"
        assert "Traceback" not in printed, printed
    print("smoke:", ", ".join(f"{round_} by {name}" for name, round_ in shown.items()) + "; SIGTERM ended it with 0")


def _read_event(url: str, key: str) -> str:
    """Wait for the first round of any game over SSE; reads bytes, without a client library or our code."""
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=_ROUND_S)
    try:
        connection.request("GET", "/sse", headers={"X-API-Key": key})
        response = connection.getresponse()
        assert response.status == 200, f"GET /sse was answered with {response.status}"
        for line in response:
            if line.startswith(b"data: {"):
                return _name(line[6:])
        raise AssertionError("the event stream ended without a round")
    finally:
        connection.close()


def _name(data: str | bytes) -> str:
    """Return the name of a round; raise KeyError or ValueError for anything else."""
    round_ = json.loads(data)
    return f"{round_['game_slug']} {round_['round_id']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
