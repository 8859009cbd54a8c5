"""``python -m bench.hostile.attacker NAME PORT GRPC_PORT``: the process that attacks until it is killed.

The key is in the environment. Prints ``attacking`` when it has begun, and then how much it has done so far.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bench._process import allow_files
from bench.hostile import crowds, frames, http2_floods, requests
from bench.hostile.sockets import Target

ATTACKS: Final[Mapping[str, tuple[str, Callable[[Target], Iterator[int]]]]] = {
    "continuation": ("empty continuation frames", frames.continuation),
    "pings": ("ping frames", frames.pings),
    "pongs": ("pong frames nobody asked for", frames.pongs),
    "empty": ("empty text frames", frames.empty_messages),
    "json-ping": ("JSON pings", frames.ping_messages),
    "subscribe": ("subscribe and unsubscribe", frames.subscribe),
    "replays": ("replays by message", frames.replays),
    "bombs": ("messages that inflate to 1 MiB", frames.bombs),
    "pipelined": ("pipelined requests", requests.pipelined),
    "pipelined-history": ("pipelined requests for 1,000 rounds", requests.pipelined_history),
    "pipelined-pages": ("pipelined requests for 500 rounds, all different", requests.pipelined_pages),
    "pipelined-proxy": ("pipelined calls for 1,000 rounds as JSON", requests.pipelined_proxy),
    "pipelined-unread": ("the same, answers never read", requests.pipelined_unread),
    "pipelined-no-key": ("pipelined requests without a key", requests.pipelined_without_key),
    "wrong-keys": ("wrong credentials", requests.wrong_credentials),
    "huge-heads": ("heads of 1 MB", requests.huge_heads),
    "long-urls": ("URLs of 1 MB", requests.long_url),
    "slow-heads": ("300 heads byte by byte", requests.slow_heads),
    "slow-bodies": ("300 bodies that never come", requests.slow_bodies),
    "chunks": ("bodies in chunks of 1 byte", requests.small_chunks),
    "watches": ("1,500 Health.Watch without a key", crowds.health_watch),
    "prefaces": ("1,100 HTTP/2 prefaces", crowds.handshakes),
    "idle": ("1,100 idle sockets", crowds.idle_sockets),
    "unread-ws": ("300 WebSocket clients that never read", crowds.never_reads_ws),
    "unread-sse": ("300 SSE clients that never read", crowds.never_reads_sse),
    "unread-history": ("300 readers of history that never read", crowds.never_reads_history),
    "filters": ("2,000 filters that leave newest first", crowds.filters),
    "leave-early": ("streams reset at once", crowds.leave_early),
    "h2-resets": ("HTTP/2 rapid reset", http2_floods.rapid_reset),
    "h2-continuation": ("HTTP/2 CONTINUATION frames", http2_floods.continuation),
    "h2-settings": ("HTTP/2 SETTINGS", http2_floods.settings),
    "h2-pings": ("HTTP/2 PING", http2_floods.pings),
    "h2-pongs": ("HTTP/2 answers to pings that nobody sent", http2_floods.pongs),
    "h2-windows": ("HTTP/2 WINDOW_UPDATE", http2_floods.window_updates),
    "h2-overflow": ("HTTP/2 windows that are too large", http2_floods.window_overflow),
    "h2-empty": ("HTTP/2 empty DATA", http2_floods.empty_data),
    "h2-priorities": ("HTTP/2 PRIORITY", http2_floods.priorities),
    "h2-bombs": ("HPACK bombs", http2_floods.hpack_bombs),
    "h2-silent": ("20,000 calls without a message", http2_floods.silent_streams),
    "h2-slow": ("300 HTTP/2 prefaces byte by byte", http2_floods.slow_prefaces),
    "h2-unread": ("300 gRPC streams without a window", http2_floods.zero_windows),
    "h2-bytes": ("100 gRPC streams that take a byte at a time", http2_floods.one_byte_windows),
    "log-pipe": ("wrong keys, and a log that nobody reads", requests.wrong_credentials),
}
_FILES: Final = 4096
_SHOWN_EVERY_S: Final = 0.1
KEY: Final = "HOSTILE_KEY"


def main(name: str, port: int, grpc_port: int) -> None:
    """Attack, with what the processes on the same core that are measured leave of it."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    allow_files(_FILES)
    attack = ATTACKS[name][1](Target(port, grpc_port, os.environ[KEY]))
    done, shown_at = next(attack), time.monotonic()  # what it needs first is there
    print("attacking", flush=True)
    for count in attack:
        done += count
        if time.monotonic() - shown_at > _SHOWN_EVERY_S:
            shown_at = time.monotonic()
            print(done, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
