"""``from`` and ``to``: every RFC 3339 form of a moment is read as that moment, to the millisecond."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from relay.history.start import parse_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(min_value=datetime(1970, 1, 3), max_value=datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001


@given(moments, st.integers(1, 9), st.booleans(), st.booleans())
def test_a_moment_is_the_same_in_every_zone_and_with_any_number_of_decimals(
    moment: datetime, decimals: int, lower: bool, plus_as_space: bool
) -> None:
    """Whole milliseconds, rounded down; a ``+`` that a query turned into a space is accepted."""
    fraction = f"{moment.microsecond:06}000"[:decimals]
    moment = moment.replace(microsecond=int(f"{fraction:0<6}"[:6]))
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction}{moment.isoformat()[-6:]}"
    text = text.lower() if lower else text
    text = text.replace("+", " ") if plus_as_space else text

    assert parse_time({"from": text}, "from") == (moment - EPOCH) // timedelta(milliseconds=1)


@given(moments)
def test_utc_may_be_written_z(moment: datetime) -> None:
    """The form of the rounds themselves."""
    moment = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)

    assert parse_time({"to": f"{moment.isoformat()}Z"}, "to") == parse_time({"to": f"{moment.isoformat()}+00:00"}, "to")


def test_moments_before_1970_and_after_9999_are_clamped() -> None:
    """No round is earlier; and no time can be added to the last representable day."""
    assert parse_time({"from": "0001-01-01T00:00:00+23:59"}, "from") == 0
    assert parse_time({"to": "9999-12-31T23:59:59Z"}, "to") == 253_402_214_400_000
