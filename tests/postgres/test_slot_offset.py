"""Where a stream begins, and how far the server is told that it may forget."""

from collections.abc import Callable, Mapping

import pytest

from backends.contract import KeptOffset
from backends.postgres.replication.capture import Capture, WalOffset
from backends.postgres.replication.slot import ReplicationOptions, Slot, SlotLost, SlotState
from backends.postgres.replication.slot_offset import SlotOffset
from rounds import Catalogue
from tests.postgres import wal_frames as frames

OPTIONS = ReplicationOptions.read({"dsn": "postgresql://db/x"})
CATALOGUE = Catalogue.load()
START = 0x100


class Memory:
    """A log that remembers what it is told, in memory. Implements `backends.contract.SourceOffsets`."""

    def __init__(self) -> None:
        self.stored: WalOffset | None = None
        self.places: dict[str, KeptOffset] = {}

    async def kept(self, source: str) -> KeptOffset | None:
        return self.places.get(source)

    async def recall(self, source: str, comes_again: Callable[[str], bool], *, since: KeptOffset | None = None) -> None:
        pass

    async def keep(self, source: str, place: str, note: str = "") -> bool:
        self.places[source] = KeptOffset(place, note, "", 0, 0)
        return True

    async def newest(self) -> Mapping[str, int]:
        return {}

    @property
    def lsns(self) -> list[int]:
        return [int(kept.offset, 16) for kept in self.places.values()]


def system(name: str = "7001", timeline: str = "1", at: str = "0/FFFF") -> dict[str, str | None]:
    return {"systemid": name, "timeline": timeline, "xlogpos": at}


def slot(lsn: int, publication: str = "16390.16384") -> Slot:
    return Slot(lsn, publication, None)


async def begun(memory: Memory | None = None) -> tuple[SlotOffset, Capture]:
    """A process that has found its slot at `START`."""
    capture = Capture(OPTIONS, CATALOGUE)
    place = SlotOffset(capture, OPTIONS)
    if memory is not None:
        place.attach(memory)
    await place.follow(system(), slot(START))
    return place, capture


def received(capture: Capture, commit_lsn: int) -> WalOffset:
    """One round, committed there."""
    (item,) = capture.feed([frames.relation(), *frames.transaction(commit_lsn, commit_lsn)])[0]
    offset: WalOffset = item.offset
    return offset


async def test_first_stream_begins_where_the_slot_is() -> None:
    """And the log knows the place from then on, so that a later process can tell whether it was moved."""
    memory = Memory()
    place, capture = await begun(memory)

    assert (capture.start_lsn, place.safe_lsn, place.told_lsn) == (START, START, START)
    assert memory.lsns == [START]
    assert place.publication == "16390.16384"


async def test_confirmed_round_counts_once_it_stands_in_the_log_with_its_place() -> None:
    """A duplicate, or what was rejected, is confirmed too, but no later process would find a place with it."""
    memory = Memory()
    place, capture = await begun(memory)
    offset = received(capture, 0x200)

    capture.confirm(offset)
    assert place.safe_lsn == START
    memory.stored = offset
    assert place.safe_lsn == offset.lsn


async def test_place_of_an_earlier_server_says_nothing_of_this_one() -> None:
    """After a failover LSNs start anew; what the log has from before is no place in the new history."""
    memory = Memory()
    place, capture = await begun(memory)
    memory.stored = received(capture, 0x8000)

    await place.follow(system(timeline="2"), slot(0x50))

    capture.confirm(received(capture, 0x80))
    assert (place.safe_lsn, place.told_lsn) == (0x50, 0x50)


async def test_place_moves_over_nothing_once_the_log_knows() -> None:
    """A busy server with an idle table may forget, but never before the next process could tell that we said so."""
    memory = Memory()
    place, capture = await begun(memory)
    capture.feed([frames.keepalive(0x300)])

    assert place.due() == 0x300
    assert (place.safe_lsn, place.is_settled) == (START, False)
    await place.move_to(0x300)
    assert memory.lsns == [0x300]
    assert (place.safe_lsn, place.is_settled, place.due()) == (0x300, True, None)


async def test_what_the_server_was_told_is_never_taken_back() -> None:
    """A round that comes after the place moved over nothing, and is not stored yet, does not move it back."""
    place, capture = await begun(Memory())
    capture.feed([frames.keepalive(0x300)])
    await place.move_to(0x300)
    place.told()

    received(capture, 0x400)

    assert capture.confirmed_lsn < 0x300
    assert (place.safe_lsn, place.told_lsn) == (0x300, 0x300)


async def test_slot_further_than_was_told_is_lost() -> None:
    """Somebody moved it, or dropped it and made it again: rounds may be missing, and only an operator knows."""
    place, _ = await begun()

    with pytest.raises(SlotLost, match="from 0/100 to 0/200") as lost:
        await place.follow(system(), slot(0x200))
    assert lost.value.state is SlotState.MOVED


async def test_slot_that_another_process_was_seen_to_read_is_followed() -> None:
    """That process has seen to what is before; we go on after it. The next time it has to be seen again."""
    place, capture = await begun()
    place.another_reads()

    await place.follow(system(), slot(0x200))

    assert (capture.start_lsn, place.safe_lsn, place.told_lsn) == (0x200, 0x200, 0x200)
    with pytest.raises(SlotLost):
        await place.follow(system(), slot(0x300))


@pytest.mark.parametrize(
    "server",
    [system("7002"), system(timeline="2"), system(at="0/150")],
    ids=["another server", "a failover", "a restored backup"],
)
async def test_another_history_begins_at_the_place_of_its_slot(server: dict[str, str | None]) -> None:
    """What we saw beyond it may not have survived: it is read again, and recognised by the log."""
    place, capture = await begun(Memory())
    received(capture, 0x200)

    await place.follow(server, slot(0x80))

    assert (capture.start_lsn, place.told_lsn, capture.generation) == (0x80, 0x80, 2)


async def test_stream_that_broke_goes_on_after_what_was_received() -> None:
    """The slot is where it was told to be: nothing is read twice."""
    place, capture = await begun()
    offset = received(capture, 0x200)

    await place.follow(system(), slot(START))

    assert capture.start_lsn == offset.lsn


async def test_publication_made_anew_is_refused() -> None:
    """It looks the same, but between the two nothing was published."""
    place, _ = await begun()

    with pytest.raises(SlotLost) as lost:
        await place.follow(system(), slot(START, "16999.16384"))
    assert lost.value.state is SlotState.PUBLICATION_CHANGED
