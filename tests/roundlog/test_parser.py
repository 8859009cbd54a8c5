"""Bytes of a NATS connection, cut anywhere: each stored round is read once, all other frames reach nats-py."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from roundlog.client.nats_internals import ConnectionParser
from roundlog.direct_get import AnswerEnd
from roundlog.entry import LogEntry
from roundlog.parser import RoundFrames

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
    st.lists(st.tuples(st.integers(1, 4000), st.booleans()), max_size=30),
    st.booleans(),
    st.booleans(),
)
async def test_whatever_arrives_and_however_it_is_cut_each_frame_goes_where_it_belongs(
    frames: list[tuple[str, LogEntry | None, bytes | None]],
    cuts: list[tuple[int, bool]],
    by_token: bool,
    at_once: bool,
) -> None:
    """A round lost or invented here is lost or invented for every client.

    Also when frames are read as soon as they come, and the rest whenever nats-py's task runs.
    """
    client, found, tokens, ends = FakeClient(), list[LogEntry](), list[bytes](), list[AnswerEnd]()

    def on_entries(token: bytes, entries: list[LogEntry]) -> None:
        found.extend(entries)
        tokens.extend(token for _ in entries)

    def on_end(_token: bytes, end: AnswerEnd) -> None:
        ends.append(end)

    frames_of_rounds = RoundFrames(PREFIX, on_entries, on_end, by_token=by_token)
    parser = ConnectionParser(Parser(cast("Any", client)), frames_of_rounds.read)
    kinds = {
        "ping": b"PING\r\n",
        "other": b"MSG _INBOX.a 3 5\r\nhello\r\n",
        "status": message(f"{PREFIX}.4", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", b""),
        "foreign": message(
            "elsewhere.crash", b"NATS/1.0\r\nNats-Subject: rounds.crash\r\nNats-Sequence: 1\r\n\r\n", b"{}"
        ),
    }
    wire = b"".join(stored(entry, published or b"") if entry else kinds[kind] for kind, entry, published in frames)

    at, unread = 0, b""
    for cut, task_runs in [*cuts, (len(wire), True)]:
        piece = wire[at : at + cut]
        unread += parser.take(piece) if at_once and not unread else piece
        at += cut
        if task_runs and unread:
            await parser.parse(unread)
            unread = b""

    names = [kind for kind, _, _ in frames]
    assert found == [entry for _, entry, _ in frames if entry is not None]
    assert tokens == [entry.game.encode() if by_token else b"" for entry in found]
    assert client.pings == names.count("ping")
    assert client.messages == [b"hello" if kind == "other" else b"{}" for kind in names if kind in ("other", "foreign")]
    assert ends == [AnswerEnd(204, "EOB", 3)] * names.count("status")


def test_message_with_a_reply_subject_is_read_too() -> None:
    """The server adds none; a publisher to our inbox may."""
    found = list[LogEntry]()
    frames = RoundFrames(PREFIX, lambda _token, entries: found.extend(entries))
    entry = LogEntry(1, "crash", b"{}")
    wire = stored(entry).replace(b" 7 ", b" 7 reply.to ", 1)

    assert frames.read(wire, 0) == len(wire)
    assert found == [entry]


async def test_message_that_nats_py_has_read_is_the_same_round() -> None:
    """Where nats-py lacks what the fast path needs, its subscriptions deliver what `read` would have read."""
    found, ends = list[tuple[bytes, LogEntry]](), list[tuple[bytes, AnswerEnd]]()
    frames = RoundFrames(
        PREFIX,
        lambda token, entries: found.extend((token, entry) for entry in entries),
        lambda token, end: ends.append((token, end)),
    )

    for headers, data in (
        ({"Nats-Msg-Id": "crash:1", "Nats-Subject": "rounds.crash", "Nats-Sequence": "9"}, b"{}"),
        ({"Status": "204", "Description": "EOB", "Nats-Num-Pending": "3"}, b""),
        ({"Nats-Subject": "other.crash", "Nats-Sequence": "9"}, b"{}"),
        ({"Nats-Subject": "rounds.crash", "Nats-Sequence": "x"}, b"{}"),
        (None, b"{}"),
    ):
        await frames.on_message(Msg(cast("Any", None), f"{PREFIX}.5", "", data, headers))

    assert found == [(b"5", LogEntry(9, "crash", b"{}"))]
    assert ends == [(b"5", AnswerEnd(204, "EOB", 3))]


ANSWERS = {
    "batch": b"Nats-Num-Pending: 4\r\nNats-Last-Sequence: 8\r\n\r\n",
    "single": b"\r\n",
    "batch in another order": b"Nats-Last-Sequence: 8\r\nNats-Num-Pending: 4\r\n\r\n",
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_answer_on_a_live_subject_is_no_round(kind: str) -> None:
    """Who may read the log can direct answers there. Only what is published as it is stored counts."""
    found, wire = list[LogEntry](), b""
    frames = RoundFrames(PREFIX, lambda _token, entries: found.extend(entries), by_token=False, republished=True)
    entries = [LogEntry(number, "crash", b"{}") for number in (1, 2)]
    end = b"Nats-Last-Sequence: 0\r\n\r\n"
    for published in PUBLISHED:
        for entry in entries:
            headers = stored(entry, published).partition(b"\r\n")[2].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            wire += stored(entry, published) + message(f"{PREFIX}.dice", headers.replace(end, ANSWERS[kind]), b"{}")
            lines = headers.replace(end, ANSWERS[kind]).decode().splitlines()[1:-1]
            parsed = dict(line.split(":", 1) for line in lines)
            answer = {name: value.strip() for name, value in parsed.items()}
            await frames.on_message(Msg(cast("Any", None), f"{PREFIX}.dice", "", b"{}", answer))

    assert frames.read(wire, 0) == len(wire)
    assert found == entries * len(PUBLISHED)


async def test_live_round_that_nats_py_has_read_is_told_from_an_answer() -> None:
    """The same where the fast path is off."""
    found = list[LogEntry]()
    frames = RoundFrames(PREFIX, lambda _token, entries: found.extend(entries), by_token=False, republished=True)
    of_log = {"Nats-Subject": "rounds.crash", "Nats-Sequence": "9"}
    for headers in (
        of_log | {"Nats-Last-Sequence": "8"},
        of_log,
        of_log | {"Nats-Last-Sequence": "8", "Nats-Num-Pending": "0"},
        {"Status": "204", "Description": "EOB"},
    ):
        await frames.on_message(Msg(cast("Any", None), f"{PREFIX}.crash", "", b"{}", headers))

    assert found == [LogEntry(9, "crash", b"{}")]


_LIES = b"Nats-Stream: ROUNDS\r\nNats-Subject: rounds.dice\r\nNats-Sequence: 7\r\n"
"""Headers that a publisher may send; the server adds its own after them."""


@pytest.mark.parametrize("published", [b"", _LIES, b"Nats-Msg-Id:crash:1\r\n", b"Nats-Msg-Id:crash:1\r\n" + _LIES])
@pytest.mark.parametrize(
    ("subject", "game"),
    [("rounds.crash", "crash"), ("other.crash", None), ("rounds.a.b", None), ("rounds", None), ("xrounds.a", None)],
)
def test_message_of_another_subject_is_no_round(subject: str, game: str | None, published: bytes) -> None:
    """A reader of all messages gets its sequence only; and no publisher makes a round of it, or another round."""
    found, others = list[LogEntry](), list[tuple[bytes, int]]()
    frames = RoundFrames(
        PREFIX,
        lambda _token, entries: found.extend(entries),
        on_other=lambda token, sequence: others.append((token, sequence)),
    )
    wire = stored(LogEntry(9, "crash", b"{}")).replace(b": rounds.crash\r\n", b": %b\r\n" % subject.encode())
    headers, _, _ = wire.partition(b"\r\n")[2].partition(b"{}")
    wire = message(f"{PREFIX}.4", headers.replace(b"Nats-Stream", published + b"Nats-Stream", 1), b"{}")

    assert frames.read(wire, 0) == len(wire)
    assert found == ([] if game is None else [LogEntry(9, game, b"{}")])
    assert others == ([(b"4", 9)] if game is None else [])


async def test_message_of_another_subject_that_nats_py_has_read_is_no_round() -> None:
    """The same where the fast path is off."""
    found, others = list[LogEntry](), list[tuple[bytes, int]]()
    frames = RoundFrames(
        PREFIX,
        lambda _token, entries: found.extend(entries),
        on_other=lambda token, sequence: others.append((token, sequence)),
    )
    for subject in ("other.crash", "rounds.a.b"):
        headers = {"Nats-Subject": subject, "Nats-Sequence": "9"}
        await frames.on_message(Msg(cast("Any", None), f"{PREFIX}.5", "", b"{}", headers))

    assert found == []
    assert others == [(b"5", 9)] * 2
