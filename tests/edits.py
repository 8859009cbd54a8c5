"""Edits of a stream as an operator makes them, through the JetStream API: ``nats stream edit``."""

from typing import Any, Final

import msgspec

from roundlog.log_settings import LogSettings
from tests.nats import NatsServer, nats_client

HARMLESS: Final[dict[str, dict[str, Any]]] = {
    "max_age_s": {"max_age": 3600 * 10**9},
    "max_bytes": {"max_bytes": 1 << 30},
    "max_msgs": {"max_msgs": 1_000_000},
    "duplicate_window_s": {"duplicate_window": 30 * 10**9},
    "discard": {"discard": "new"},
}
"""By the name that is logged."""

SILENT: Final[dict[str, dict[str, Any]]] = {
    "description": {"description": "rounds of games", "metadata": {"team": "games"}},
    "compression": {"compression": "s2"},
    "max_msg_size": {"max_msg_size": 1 << 20},
    "allow_rollup_hdrs": {"allow_rollup_hdrs": True, "max_consumers": 10},
}
"""What we promise nothing about."""

BREAKING: Final[dict[str, dict[str, Any]]] = {
    "republish": {"republish": None},
    "republish elsewhere": {"republish": {"src": "rounds.*", "dest": "elsewhere.{{wildcard(1)}}"}},
    "republish headers": {
        "republish": {"src": "rounds.*", "dest": "live.rounds.{{wildcard(1)}}", "headers_only": True}
    },
    "subjects": {"subjects": ["rounds.*", "other.*"]},
    "allow_direct": {"allow_direct": False},
    "max_msgs_per_subject": {"max_msgs_per_subject": 10},
    "subject_transform": {"subject_transform": {"src": "rounds.*", "dest": "rounds.x-{{wildcard(1)}}"}},
    "sources": {"sources": [{"name": "ELSEWHERE"}]},
    "no_ack": {"no_ack": True},
    "retention": {"retention": "interest"},
    "discard": {"discard": "new", "max_bytes": 1 << 30},
}
"""By the name of the setting, and more words where it has several cases."""


async def api(server: NatsServer, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    async with nats_client(LogSettings(url=server.url)) as nc:
        answer = await nc.request(f"$JS.API.{call}", msgspec.json.encode(body) if body else b"", timeout=20)
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    assert "error" not in decoded, decoded
    return decoded


async def edit(server: NatsServer, changes: dict[str, Any], stream: str = "ROUNDS") -> dict[str, Any]:
    """Change settings of a stream; return what undoes it."""
    config = (await api(server, f"STREAM.INFO.{stream}"))["config"]
    changed = {**config, **changes}
    await api(server, f"STREAM.UPDATE.{stream}", {name: value for name, value in changed.items() if value is not None})
    return {name: config.get(name) for name in changes}
