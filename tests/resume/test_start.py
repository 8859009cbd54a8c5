"""Where a stream begins: what clients may send, and what they get when rounds are gone."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BadRequest
from relay.history.start import MAX_LAST, Start, hello
from relay.history.walk import resume
from relay.live.bounds import Bounds, Gap, GapReason
from rounds import Cursor, InvalidCursor
from rounds.cursor import MAX_SEQUENCE

NEARLY_NUMBERS = ["1_0", " 5", "5 ", "5\n", "+5", "٣", "5.", ".5", "1e1", "0x5", "1" * 21]
"""Most of these Python reads as numbers."""
EPOCHS = st.sampled_from(["k1", "k2"])


@st.composite
def logs(draw: st.DrawFn) -> Bounds:
    head = draw(st.integers(0, 50))
    return Bounds("k1", draw(st.integers(1, head + 1)), head)


@given(logs(), EPOCHS, st.integers(0, 60) | st.just(MAX_SEQUENCE))
def test_rounds_after_a_cursor_are_read_or_named_as_a_gap(bounds: Bounds, epoch: str, sequence: int) -> None:
    """Every round after the cursor is read from the position on, or lies within the gap."""
    position, gap = resume(Cursor(epoch, sequence), bounds)

    assert bounds.first - 1 <= position <= bounds.head
    assert (gap is None) == (epoch == bounds.epoch and bounds.first - 1 <= sequence <= bounds.head)
    if gap is None:
        assert position == sequence
    elif epoch != bounds.epoch:
        assert gap == Gap(Cursor(epoch, sequence), bounds.at(bounds.first - 1), GapReason.REBUILT)
        assert position == bounds.first - 1
    elif sequence > bounds.head:
        assert gap == Gap(bounds.at(bounds.head), Cursor(epoch, sequence), GapReason.AHEAD)
        assert position == bounds.head
    else:
        assert gap == Gap(Cursor(epoch, sequence), bounds.at(bounds.first - 1), GapReason.EXPIRED)
        assert position == bounds.first - 1


def test_events_carry_cursors_that_can_be_sent_back() -> None:
    """Events have the form that docs/resume.md gives."""
    bounds = Bounds("k3f9a2", 11, 20)

    assert hello(bounds, complete=True) == {
        "event": "hello",
        "complete": True,
        "first": "k3f9a2-11",
        "head": "k3f9a2-20",
    }
    assert Gap(bounds.at(3), bounds.at(10), GapReason.EXPIRED).event() == {
        "event": "gap",
        "from": "k3f9a2-3",
        "to": "k3f9a2-10",
        "reason": "expired",
    }


def test_client_that_asks_for_no_history_is_live_and_gets_no_events() -> None:
    """The default connection carries rounds and nothing else."""
    start = Start.parse({"games": "crash", "min_point": "2"})

    assert start.is_live
    assert not start.receives_events


@pytest.mark.parametrize("sequence", [0, 1, MAX_SEQUENCE])
def test_every_sequence_that_the_log_can_have_is_read(sequence: int) -> None:
    """From before the first round to the last that 64 bits can number."""
    start = Start.parse({"after": f"k3f9a2-{sequence}"})

    assert start.after == Cursor("k3f9a2", sequence)
    assert start.receives_events


@pytest.mark.parametrize(
    "text",
    [
        *("", "k3f9a2", "k3f9a2-", "-5", "k3f9a2--5", "k3f9a2-05", "k3f9a2-5 ", "k3f9a2-5\n", "K3F9A2-5", "k3f9a2-1e3"),
        *("k3f9a2-٣", f"k3f9a2-{2**64}", "k" * 17 + "-1", "k3f9a2-" + "9" * 5000, "null", "k3f9a2_5", "k3f9a2-5-6"),
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_malformed_cursor_is_refused_in_every_parameter(text: str) -> None:
    """Parsing is strict: what is nearly a cursor is rejected."""
    with pytest.raises(InvalidCursor, match="malformed"):
        Start.parse({"after": text})
    if text:
        with pytest.raises(InvalidCursor, match="malformed"):
            Start.parse({}, last_event_id=text)


def test_last_event_id_wins_over_the_start_in_the_url() -> None:
    """The URL of an EventSource stays that of its first connection; its end and its speed still count."""
    query = {"from": "2026-01-18T10:00:00Z", "to": "2026-01-18T11:00:00Z", "speed": "2"}

    start = Start.parse(query, last_event_id="k3f9a2-7")

    assert (start.after, start.since_ms, start.last) == (Cursor("k3f9a2", 7), None, None)
    assert (start.until_ms, start.speed) == (Start.parse(query).until_ms, 2)
    assert Start.parse({"last": "5"}, last_event_id="k3f9a2-7") == Start.parse({"after": "k3f9a2-7"})
    assert Start.parse({"after": "k3f9a2-3"}, last_event_id="k3f9a2-7") == Start.parse({"after": "k3f9a2-7"})
    assert Start.parse({"last": "5"}, last_event_id="") == Start(last=5)


@pytest.mark.parametrize(
    "query",
    [
        {"after": "k1-1", "from": "2026-01-18T10:00:00Z"},
        {"after": "k1-1", "last": "1"},
        {"from": "2026-01-18T10:00:00Z", "last": "1"},
        {"after": "k1-1", "from": "2026-01-18T10:00:00Z", "last": "1"},
    ],
    ids=" ".join,
)
def test_two_starts_are_refused_by_name(query: dict[str, str]) -> None:
    """They would contradict each other."""
    with pytest.raises(BadRequest, match=f"{' and '.join(query)} were given"):
        Start.parse(query)


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("2026-01-18T10:00:30Z", 1_768_730_430_000),
        ("2026-01-18T10:00:30.123456Z", 1_768_730_430_123),
        ("2026-01-18T12:00:30+02:00", 1_768_730_430_000),
        ("2026-01-18T12:00:30 02:00", 1_768_730_430_000),  # a plus sign that was not percent-encoded
        ("2026-01-18t10:00:30z", 1_768_730_430_000),
        ("1960-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59-23:59", 253_402_214_400_000),
    ],
)
def test_times_are_rfc_3339(text: str, moment_ms: int) -> None:
    """With a zone; fractions are truncated to milliseconds."""
    assert Start.parse({"from": text}).since_ms == moment_ms
    assert Start.parse({"to": text}).until_ms == moment_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1768730430",
        "2026-01-18",
        "2026-01-18T10:00:30",
        "2026-13-18T10:00:30Z",
        "2026-01-18 10:00Z",
        "20260118T100030Z",
        "2026-W03-7T10:00:30Z",
        "2026-01-18T10:00:30.Z",
        "٢026-01-18T10:00:30Z",
    ],
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_other_times_are_refused(name: str, text: str) -> None:
    """A time without a zone would mean something else on every machine."""
    with pytest.raises(BadRequest, match=f"{name} {text!r} is not an RFC 3339 time"):
        Start.parse({name: text})


def test_from_after_to_is_refused() -> None:
    """A stream that must be empty is a mistake; one instant is not."""
    with pytest.raises(BadRequest, match="is later than"):
        Start.parse({"from": "2026-01-18T10:00:01Z", "to": "2026-01-18T10:00:00Z"})
    Start.parse({"from": "2026-01-18T10:00:00Z", "to": "2026-01-18T10:00:00Z"})


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "1000000000", str(MAX_LAST + 1), "٣", "+5", "", "5 ", "9" * 400])
def test_last_is_a_whole_number_within_its_limit(text: str) -> None:
    """The last rounds of each game are looked up, so their number is limited."""
    with pytest.raises(BadRequest, match="is not a whole number from 1 to 10000"):
        Start.parse({"last": text})


@pytest.mark.parametrize(
    "text", ["0", "-1", "-0", "0.001", "10001", "1e300", "inf", "-inf", "nan", "", "fast", "1,5", *NEARLY_NUMBERS]
)
def test_speed_is_a_positive_number_within_its_limits(text: str) -> None:
    """Speed 0 would never end, and NaN is no speed."""
    with pytest.raises(BadRequest, match=r"is not a number from 0\.01 to 10000"):
        Start.parse({"speed": text})


@given(st.dictionaries(st.sampled_from(["after", "from", "to", "last", "speed"]), st.text(max_size=30)), st.text())
def test_any_text_is_read_or_refused(query: dict[str, str], last_event_id: str) -> None:
    """Anything else that a client sends is rejected as a bad request."""
    with contextlib.suppress(BadRequest, InvalidCursor):
        start = Start.parse(query, last_event_id=last_event_id)
        assert start.speed is None or math.isfinite(start.speed)
