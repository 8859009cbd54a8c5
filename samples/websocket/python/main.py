"""Print every finished round of one game. When the connection is lost, resume where it stopped."""

import asyncio
import json
import os
import random
import sys

import aiohttp
import websockets

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8080")
API_KEY = os.environ.get("API_KEY", "sk_live_" + "0" * 64)
GAME = os.environ.get("GAME", "crash")


async def new_token(session: aiohttp.ClientSession) -> str:
    """Exchange the key for a token, which opens connections for 30 s."""
    async with session.post(f"{BASE_URL}/api/auth/token", headers={"X-API-Key": API_KEY}) as response:
        if response.status in (400, 401, 403):
            sys.exit(f"refused: {await response.text()}")
        response.raise_for_status()
        return str((await response.json())["token"])


async def main() -> None:
    url = BASE_URL.replace("http", "ws", 1) + f"/ws/{GAME}"
    cursor, pause_s = "", 1.0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            retry_s = random.uniform(0, pause_s)  # random, so that clients do not all reconnect at once
            pause_s = min(2 * pause_s, 30)
            try:
                token = websockets.Subprotocol(await new_token(session))
                query = f"?after={cursor}" if cursor else "?hello=1"  # the first event has the place to resume at
                async with websockets.connect(url + query, subprotocols=[token]) as ws:
                    async for message in ws:
                        event = json.loads(message)
                        if "round_id" in event:  # other messages are about the stream itself
                            print(f"[{event['game_slug']}] Round {event['round_id']}", flush=True)
                            cursor, pause_s = event["cursor"], 1.0
                        cursor = cursor or event.get("head", "")
            except websockets.ConnectionClosed as error:
                if error.rcvd and error.rcvd.code in (1007, 1008, 1009, 4001):  # 4001: the key was revoked
                    sys.exit(f"refused: {error.rcvd.reason}")
                print(f"disconnected: {error}", file=sys.stderr)
                reason = json.loads(error.rcvd.reason) if error.rcvd and error.rcvd.reason.startswith("{") else {}
                cursor = reason.get("cursor", cursor)  # everything up to here was sent
                retry_s = reason.get("retry_ms", 1000 * retry_s) / 1000
            except websockets.InvalidStatus as error:
                if error.response.status_code in (400, 401, 403, 404):
                    sys.exit(f"refused: {error.response.body.decode()}")
            except (aiohttp.ClientError, websockets.WebSocketException, OSError) as error:
                print(f"disconnected: {error}", file=sys.stderr)
            await asyncio.sleep(retry_s)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
