"""Times of rounds are accepted and converted as the standard library does it."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rounds.times import after_leap_second, is_utc_time, nanos, parse_moment, unix_s, utc_text

SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z", re.ASCII)


@given(st.datetimes(timezones=st.just(UTC)), st.text("0123456789", max_size=9))
def test_every_moment_is_read_as_the_standard_library_reads_it(moment: datetime, fraction: str) -> None:
    """From year 1 to 9999, with any number of digits after the second."""
    text = (
        moment.strftime("%Y").rjust(4, "0")
        + moment.strftime("-%m-%dT%H:%M:%S")
        + (f".{fraction}" if fraction else "")
        + "Z"
    )
    assert is_utc_time(text)
    assert unix_s(text) == int(moment.replace(microsecond=0).timestamp())
    assert nanos(text) == int(fraction.ljust(9, "0")) if fraction else nanos(text) == 0


@given(
    st.one_of(
        st.text(max_size=32),
        st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,10})?Z?\n?\Z"),
        st.from_regex(r"\A2026-0[0-9]-3[0-9]T2[0-9]:[5-6][0-9]:[5-6][0-9](\.[0-9]{0,10})?(Z|z|\+00:00)\Z"),
    )
)
def test_any_text_is_a_time_only_if_the_standard_library_and_the_pattern_accept_it(text: str) -> None:
    """A more lenient check would accept rounds that clients cannot read."""
    expected = False
    if SHAPE.fullmatch(text):
        try:
            datetime.fromisoformat(text[:19] + "+00:00")
            expected = True
        except ValueError:
            pass
    assert is_utc_time(text) is expected


@pytest.mark.parametrize("text", ["", "2026-02-30T10:00:30Z", "2026-01-18 10:00:30Z"])
def test_text_that_is_not_a_time_has_no_unix_time(text: str) -> None:
    """An error here would be a wrong timestamp for every gRPC client."""
    with pytest.raises(ValueError, match="is not RFC 3339"):
        unix_s(text)


@given(st.integers(0, 253_402_300_799_999))
def test_written_moment_is_read_back(moment_ms: int) -> None:
    """Exact to the millisecond, up to the end of year 9999."""
    text = utc_text(moment_ms)
    assert is_utc_time(text)
    assert 1000 * unix_s(text) + nanos(text) // 1_000_000 == moment_ms


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2026-01-18T10:00:60.123456789Z", "2026-01-18T10:01:00.123456789Z"),
        ("9999-12-31T23:59:60Z", None),
        ("2026-01-18T10:00:59Z", None),
        ("2026-01-18T10:00:61Z", None),
        ("2026-02-30T10:00:60Z", None),
        ("2026-01-18T10:00:60", None),
    ],
)
def test_leap_second_becomes_the_next_second(text: str, after: str | None) -> None:
    """As PostgreSQL stores it; neither Python nor most clients can read ``:60``."""
    assert after_leap_second(text) == after


def test_moment_may_be_a_leap_second_in_any_form() -> None:
    """A time that an operator or a client copies from another system."""
    for text in ("2016-12-31T23:59:60Z", "2016-12-31 23:59:60+00:00", "2017-01-01T00:59:60.0+01:00"):
        assert parse_moment(text) == datetime(2017, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="after the year 9999"):
        parse_moment("9999-12-31T23:59:60Z")
    with pytest.raises(ValueError, match="second must be"):
        parse_moment("2016-12-31T23:59:61Z")
