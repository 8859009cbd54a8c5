"""Which rounds of a range the log holds: all of them, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.stored_ids import Digests, KnownRounds, TooManyRounds
from roundlog.log_settings import LogSettings
from tests.backends.harness import DeadLetters, Source, make_round
from tests.nats import NatsServer, nats_client


@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(0, 40).map(lambda n: (n << 11) + 1), max_size=300))
def test_numbers_are_kept_as_in_a_set(numbers: list[int]) -> None:
    """Including numbers of the same slot, and through any growth."""
    digests = Digests()
    for number in numbers * 2:
        digests.add(number)

    assert len(digests) == len(set(numbers))
    assert all(number in digests for number in numbers)
    assert not any(number + 1 in digests for number in numbers if number + 1 not in numbers)


def test_many_numbers_take_few_bytes() -> None:
    """Through several growths."""
    digests = Digests()
    for number in range(1, 20_001):
        digests.add(number * 0x9E3779B97F4A7C15 % 2**64)
    assert len(digests) == 20_000
    assert 5 not in digests


@given(st.lists(st.tuples(st.integers(1, 60).map(lambda n: n << 10), st.integers(0, 2**64 - 1)), max_size=3000))
def test_values_are_kept_as_in_a_mapping(pairs: list[tuple[int, int]]) -> None:
    """The newest value of each number, through any growth."""
    digests = Digests(values=2)
    for number, value in pairs:
        digests.add(number, value, value ^ 5)
    for number in range(100_001, 100_701):
        digests.add(number, number, 0)

    expected = dict(pairs)
    assert {number: tuple(digests.values(number) or ()) for number in expected} == {
        number: (value, value ^ 5) for number, value in expected.items()
    }
    assert digests.values(61 << 10) is None
    assert len(digests) == len(expected) + 700


@pytest.mark.service
async def test_rounds_of_the_range_are_known_and_too_many_are_a_sentence(nats: NatsServer) -> None:
    """Including those stored later. Over the bound nothing is published, and the error says what to do."""
    settings, source = LogSettings(url=nats.url), Source(300)
    await Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=DeadLetters()).run(source.read())
    async with KnownRounds(settings, 101, 250) as known:
        await known.refresh(above=100)
        assert [n for n in range(1, 301) if make_round(n) in known] == list(range(101, 251))
        more = Source(1, start=1)
        more.rounds = [make_round(120, "dice")]
        await Publisher(settings, PublisherSettings(), confirm=more.confirm, rejects=DeadLetters()).run(more.read())
        await known.refresh(above=110)
        assert make_round(120, "dice") in known

        # What was deleted from the log since is not known any more, and the rest still is.
        async with nats_client(settings) as nc:
            await nc.jetstream().purge_stream("ROUNDS", subject="rounds.crash")
        await known.refresh(above=110)
        assert [n for n in range(111, 251) if make_round(n) in known] == [n for n in range(111, 251) if n % 3]
    async with KnownRounds(settings, 101, 250, most=90) as known:
        with pytest.raises(TooManyRounds, match=r"more than 90 rounds .* --from-id and --to-id"):
            await known.refresh(above=100)
