"""Print every finished round of one game. When the connection is lost, resume where it stopped."""

import json
import os
import random
import sys
import time

import requests
import sseclient

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8080")
URL = f"{BASE_URL}/sse/{os.environ.get('GAME', 'crash')}?hello=1"  # hello: the place to resume at before any round
headers = {"X-API-Key": os.environ.get("API_KEY", "sk_live_" + "0" * 64), "Accept": "text/event-stream"}


def main() -> None:
    pause_s = 1.0
    while True:
        try:
            # The relay writes at least every 15 s, so half a minute of silence means that the connection is dead.
            with requests.get(URL, headers=headers, stream=True, timeout=(10, 30)) as response:
                if response.status_code in (400, 401, 403, 404):
                    sys.exit(f"refused: {response.text}")
                response.raise_for_status()
                for event in sseclient.SSEClient(response).events():
                    if event.event == "message":  # other events are about the stream itself
                        round_ = json.loads(event.data)
                        print(f"[{round_['game_slug']}] Round {round_['round_id']}", flush=True)
                        pause_s = 1.0
                    if event.id:
                        headers["Last-Event-ID"] = event.id  # the place to resume at
        except requests.RequestException as error:
            print(f"disconnected: {error}", file=sys.stderr)
        time.sleep(random.uniform(0, pause_s))  # random, so that clients do not all reconnect at once
        pause_s = min(2 * pause_s, 30)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
