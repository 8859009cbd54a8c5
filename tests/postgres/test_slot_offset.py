"""Where a stream begins, and which offset is reported to the server."""

from collections.abc import Callable, Mapping
from datetime import datetime

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
    """A log that keeps offsets in memory. Implements `backends.contract.SourceOffsets`."""

    def __init__(self) -> None:
        self.stored: WalOffset | None = None
        self.offsets: dict[str, KeptOffset] = {}
        self.recalls = 0

    async def kept(self, source: str) -> KeptOffset | None:
        return self.offsets.get(source)

    async def recall(
        self,
        source: str,
        comes_again: Callable[[str], bool],
        *,
        since: KeptOffset | None = None,
        stored_since: datetime | None = None,
    ) -> None:
        self.recalls += 1

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        self.offsets[source] = KeptOffset(offset, note, "", 0)
        return True

    async def newest(self) -> Mapping[str, int]:
        return {}

    @property
    def lsns(self) -> list[int]:
        return [int(kept.offset, 16) for kept in self.offsets.values()]


def system(name: str = "7001", timeline: str = "1", at: str = "0/FFFF") -> dict[str, str | None]:
    return {"systemid": name, "timeline": timeline, "xlogpos": at}


def slot(lsn: int, publication: str = "16390.16384") -> Slot:
    return Slot(lsn, publication, None)


async def begun(memory: Memory | None = None) -> tuple[SlotOffset, Capture]:
    """A process whose slot is at `START`."""
    capture = Capture(OPTIONS, CATALOGUE)
    slot_offset = SlotOffset(capture, OPTIONS)
    if memory is not None:
        slot_offset.attach(memory)
    await slot_offset.choose_start(system(), slot(START))
    return slot_offset, capture


def received(capture: Capture, commit_lsn: int) -> WalOffset:
    """Receive one round with this commit LSN; return its offset."""
    (item,) = capture.feed([frames.relation(), *frames.transaction(commit_lsn, commit_lsn)])[0]
    offset: WalOffset = item.offset
    return offset


@pytest.mark.parametrize(("is_shared", "times"), [(False, 1), (True, 2)])
async def test_rounds_are_recalled_again_after_another_process_has_read_the_slot(is_shared: bool, times: int) -> None:
    """It may have stored rounds and not have advanced the slot. Alone, we know what we have stored."""
    memory = Memory()
    slot_offset, capture = await begun(memory)

    if is_shared:
        slot_offset.mark_shared()
    await slot_offset.choose_start(system(), slot(START))

    assert memory.recalls == times
    assert (capture.start_lsn, slot_offset.reported_lsn) == (START, START)


async def test_first_stream_begins_where_the_slot_is() -> None:
    """The log keeps this offset, so that a later process can see whether the slot was moved."""
    memory = Memory()
    slot_offset, capture = await begun(memory)

    assert (capture.start_lsn, slot_offset.safe_lsn, slot_offset.reported_lsn) == (START, START, START)
    assert memory.lsns == [START]
    assert slot_offset.publication == "16390.16384"


async def test_confirmed_round_counts_once_the_log_has_its_offset() -> None:
    """A duplicate or a reject is confirmed too, but the log has no offset of it for a later process."""
    memory = Memory()
    slot_offset, capture = await begun(memory)
    offset = received(capture, 0x200)

    capture.confirm(offset)
    assert slot_offset.safe_lsn == START
    memory.stored = offset
    assert slot_offset.safe_lsn == offset.lsn


async def test_offset_of_an_earlier_server_is_ignored() -> None:
    """After a failover an LSN in the log from before is not an offset in the new history."""
    memory = Memory()
    slot_offset, capture = await begun(memory)
    memory.stored = received(capture, 0x8000)

    await slot_offset.choose_start(system(timeline="2"), slot(0x50))

    capture.confirm(received(capture, 0x80))
    assert (slot_offset.safe_lsn, slot_offset.reported_lsn) == (0x50, 0x50)


async def test_offset_advances_past_empty_wal_once_the_log_has_it() -> None:
    """A busy server with an idle table may remove WAL, but only after the log has the offset for the next process."""
    memory = Memory()
    slot_offset, capture = await begun(memory)
    capture.feed([frames.keepalive(0x300)])

    assert slot_offset.empty_wal_end() == 0x300
    assert (slot_offset.safe_lsn, slot_offset.is_settled) == (START, False)
    await slot_offset.advance_to(0x300)
    assert memory.lsns == [0x300]
    assert (slot_offset.safe_lsn, slot_offset.is_settled, slot_offset.empty_wal_end()) == (0x300, True, None)


async def test_reported_offset_never_decreases() -> None:
    """A round that is received after an advance past empty WAL, and is not stored yet, does not move it back."""
    slot_offset, capture = await begun(Memory())
    capture.feed([frames.keepalive(0x300)])
    await slot_offset.advance_to(0x300)
    slot_offset.mark_reported()

    received(capture, 0x400)

    assert capture.confirmed_lsn < 0x300
    assert (slot_offset.safe_lsn, slot_offset.reported_lsn) == (0x300, 0x300)


async def test_slot_ahead_of_the_reported_offset_is_lost() -> None:
    """Another program advanced it, or dropped and recreated it: rounds may be missing, and an operator has to act."""
    slot_offset, _ = await begun()

    with pytest.raises(SlotLost, match="from 0/100 to 0/200") as lost:
        await slot_offset.choose_start(system(), slot(0x200))
    assert lost.value.state is SlotState.MOVED


async def test_slot_that_another_process_has_read_is_continued() -> None:
    """That process has stored the rounds before; we continue after it. This holds for one start only."""
    slot_offset, capture = await begun()
    slot_offset.mark_shared()

    await slot_offset.choose_start(system(), slot(0x200))

    assert (capture.start_lsn, slot_offset.safe_lsn, slot_offset.reported_lsn) == (0x200, 0x200, 0x200)
    with pytest.raises(SlotLost):
        await slot_offset.choose_start(system(), slot(0x300))


@pytest.mark.parametrize(
    "server",
    [system("7002"), system(timeline="2"), system(at="0/150")],
    ids=["another server", "a failover", "a restored backup"],
)
async def test_another_history_begins_at_the_offset_of_its_slot(server: dict[str, str | None]) -> None:
    """Rounds above it may not have survived: they are read again, and recognised in the log."""
    slot_offset, capture = await begun(Memory())
    received(capture, 0x200)

    await slot_offset.choose_start(server, slot(0x80))

    assert (capture.start_lsn, slot_offset.reported_lsn, capture.generation) == (0x80, 0x80, 2)


async def test_stream_continues_after_the_received_rounds() -> None:
    """The slot is at the reported offset: no round is read twice."""
    slot_offset, capture = await begun()
    offset = received(capture, 0x200)

    await slot_offset.choose_start(system(), slot(START))

    assert capture.start_lsn == offset.lsn


async def test_recreated_publication_is_refused() -> None:
    """It looks the same, but between the two no row was published."""
    slot_offset, _ = await begun()

    with pytest.raises(SlotLost) as lost:
        await slot_offset.choose_start(system(), slot(START, "16999.16384"))
    assert lost.value.state is SlotState.PUBLICATION_CHANGED
