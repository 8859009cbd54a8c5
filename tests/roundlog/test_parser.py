"""Bytes of a NATS connection, cut anywhere: every stored round comes out once, everything else reaches nats-py."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from roundlog.entry import LogEntry
from roundlog.parser import RoundParser

PREFIX = "live.rounds"


class FakeClient:
    """What nats-py's parser needs of a client."""

    def __init__(self) -> None:
        self.pings = 0
        self.messages: list[bytes] = []

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_msg(self, _sid: int, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes) -> None:
        self.messages.append(data)


def message(subject: str, headers: bytes, data: bytes) -> bytes:
    return b"HMSG %b 7 %d %d\r\n%b%b\r\n" % (subject.encode(), len(headers), len(headers) + len(data), headers, data)


def stored(entry: LogEntry, published: bytes = b"") -> bytes:
    place = b"Nats-Stream: ROUNDS\r\nNats-Subject: rounds.%b\r\nNats-Sequence: %d\r\n" % (
        entry.game.encode(),
        entry.sequence,
    )
    time = b"Nats-Time-Stamp: 2026-01-18T10:00:30Z\r\nNats-Last-Sequence: 0\r\n\r\n"
    return message(f"{PREFIX}.{entry.game}", b"NATS/1.0\r\n" + published + place + time, entry.data)


PUBLISHED = [
    b"Nats-Msg-Id:crash:1\r\n",
    b"Nats-Msg-Id:crash:1\r\nNats-Expected-Last-Msg-Id:dice:7\r\n",
    b"Nats-Msg-Id:crash:1\r\nRelay-Position:pg:0123456789:16B374D848\r\n",
    b"Nats-Msg-Id:crash:1\r\nNats-Expected-Last-Msg-Id:dice:7\r\nRelay-Position:pg:0123456789:0\r\n",
    b"",
    b"Nats-Msg-Id: crash:1\r\nX-Made-By: hand\r\n",
    b"X-Lie: Nats-Sequence: 99\r\n",
]
DATA = [b"", b'{"round_id":1}', b"HMSG live.rounds.crash 7 1 1\r\n", b"Nats-Sequence: 5\r\n", b"x" * 3000]
entries = st.builds(
    LogEntry, st.integers(1, 2**64 - 1), st.sampled_from(["crash", "wall-street", "x"]), st.sampled_from(DATA)
)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("stored"), entries, st.sampled_from(PUBLISHED)),
            st.tuples(st.sampled_from(["ping", "other", "status", "foreign"]), st.none(), st.none()),
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 4000), max_size=30),
    st.booleans(),
)
async def test_whatever_arrives_and_however_it_is_cut_each_frame_goes_where_it_belongs(
    frames: list[tuple[str, LogEntry | None, bytes | None]], cuts: list[int], by_token: bool
) -> None:
    """A lost or invented round here would be lost or invented for every client."""
    client, found, tokens, others = FakeClient(), list[LogEntry](), list[bytes](), list[bytes]()

    def on_entries(token: bytes, entries: list[LogEntry]) -> None:
        found.extend(entries)
        tokens.extend(token for _ in entries)

    def on_other(_token: bytes, headers: bytes) -> None:
        others.append(headers)

    parser = RoundParser(cast("Any", client), PREFIX, on_entries, on_other, by_token=by_token)
    kinds = {
        "ping": b"PING\r\n",
        "other": b"MSG _INBOX.a 3 5\r\nhello\r\n",
        "status": message(f"{PREFIX}.4", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", b""),
        "foreign": message(
            "elsewhere.crash", b"NATS/1.0\r\nNats-Subject: rounds.crash\r\nNats-Sequence: 1\r\n\r\n", b"{}"
        ),
    }
    wire = b"".join(stored(entry, published or b"") if entry else kinds[kind] for kind, entry, published in frames)

    at = 0
    for cut in [*cuts, len(wire)]:
        await parser.parse(wire[at : at + cut])
        at += cut

    names = [kind for kind, _, _ in frames]
    assert found == [entry for _, entry, _ in frames if entry is not None]
    assert tokens == [entry.game.encode() if by_token else b"" for entry in found]
    assert client.pings == names.count("ping")
    assert client.messages == [b"hello" if kind == "other" else b"{}" for kind in names if kind in ("other", "foreign")]
    assert [other[:12] for other in others] == [b"NATS/1.0 204"] * names.count("status")
