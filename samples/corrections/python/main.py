"""Keep the present state of a game's newest rounds: as they were corrected, without those that were taken back."""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from typing import Any

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8080")
URL = f"{BASE_URL}/sse/{os.environ.get('GAME', 'crash')}?last=100&corrections=1"
headers = {"X-API-Key": os.environ.get("API_KEY", "sk_live_" + "0" * 64)}
rounds: dict[tuple[str, int], dict[str, Any]] = {}


def apply(round_: dict[str, Any]) -> bool:
    """Take a round or a correction; return whether it is the newest state of that round."""
    key = round_["game_slug"], round_["round_id"]
    known = rounds.get(key)
    if known is not None and known.get("revision", 1) >= round_.get("revision", 1):
        return False  # it came before: this state is as new, or newer
    rounds[key] = round_  # also a correction of a round that this program has not seen: its state is whole
    return True


def show(round_: dict[str, Any]) -> str:
    text = f"[{round_['game_slug']}] Round {round_['round_id']}"
    if round_.get("voided"):
        return f"{text} was taken back"
    revision = round_.get("revision", 1)
    return f"{text}: {round_['extras']}" + (f" (revision {revision})" if revision > 1 else "")


def main() -> None:
    pause_s = 1.0
    while True:
        try:
            # The relay writes at least every 15 s, so half a minute of silence means that the connection is dead.
            with urllib.request.urlopen(urllib.request.Request(URL, headers=headers), timeout=30) as response:
                for line in response:
                    if line.startswith(b"id: "):
                        headers["Last-Event-ID"] = line[4:].decode().strip()  # the place to resume at
                    elif line.startswith(b"data: ") and "round_id" in (message := json.loads(line[6:])):
                        if apply(message):
                            print(show(message), flush=True)
                        pause_s = 1.0
        except urllib.error.HTTPError as error:
            if error.code in (400, 401, 403, 404):
                sys.exit(f"refused: {error.read().decode()}")
            print(f"disconnected: {error}", file=sys.stderr)
        except OSError as error:
            print(f"disconnected: {error}", file=sys.stderr)
        time.sleep(random.uniform(0, pause_s))  # random, so that clients do not all reconnect at once
        pause_s = min(2 * pause_s, 30)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
