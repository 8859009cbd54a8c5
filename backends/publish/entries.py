"""Make the entries of what a backend yields: with its id, its subject and its offset, or settled when the log has it.

Owns the decision whether a round is skipped, and whether the log has to be asked before that is decided. Knows nothing
of connections.
"""

from typing import Final, Generic, TypeVar

from backends.contract import Captured, HasOffsets, Rejected
from backends.publish.comparison import Comparison
from backends.publish.corrections.stored_corrections import StoredCorrections, id_of, source_of
from backends.publish.pipeline import RAW_BYTES, Pipeline
from backends.publish.window.acks import Entry
from roundlog.publish.hpub import offset_header
from rounds import Round, dedup_id, log_subject
from rounds.subjects import corrections_subject

P = TypeVar("P")

_SUBJECTS_KEPT: Final = 4096


class Entries(Generic[P]):
    """Makes the entries of one publisher."""

    def __init__(
        self,
        pipeline: Pipeline[P],
        comparison: Comparison[P],
        corrections: StoredCorrections,
        with_offsets: HasOffsets[P] | None,
    ) -> None:
        """Take what is known of the log; `with_offsets` writes offsets as text, None: they have no text."""
        self._pipeline = pipeline
        self._comparison = comparison
        self._corrections = corrections
        self._revisions = corrections.revisions
        self._corrected = corrections.revisions.rounds
        self._with_offsets = with_offsets
        self._offset_text: bytes | None = None  # of the last round, and its header line
        self._offset_line = b""
        self._subjects: dict[str, bytes] = {}
        self._floor = 0  # of entries that are made now, and the next two too
        self._checked_at = 0.0
        self._read_at = 0.0
        self._trusts_known = False

    def begin_batch(self, read_at: float) -> None:
        """Prepare for rounds that were read at this time, in seconds of `boot_s`."""
        self._read_at = read_at
        self._trusts_known = False
        self.compared()

    def compared(self) -> None:
        """Take note, within a batch, that a comparison may have found its rounds since."""
        self._floor = self._comparison.floor()
        self._checked_at = max(self._read_at, self._comparison.compared_at)

    def asked(self) -> None:
        """Take note that the log was asked, as `make` requires. That holds for the rest of the batch."""
        self._trusts_known = True

    def make(self, item: Captured[P]) -> Entry[P] | Rejected[P] | None:
        """Return the entry of an item. None: first ask the log what it has now, call `asked`, and then this again."""
        round_, offset = item.round, item.offset
        try:
            subject = self._subjects.get(round_.game_slug) or self._subject(round_.game_slug)
            msg_id = _msg_id(round_)
            data = round_.to_json()
        except (ValueError, TypeError) as error:
            key = f"{round_.game_slug!s:.64}:{round_.round_id!s:.32}"
            return Rejected(key, str(error), repr(round_).encode(errors="replace")[:RAW_BYTES], offset)
        if item.is_correction or msg_id in self._corrected or round_.revision != 1 or round_.voided:
            return self._correction(item, subject, msg_id)
        comparison = self._comparison
        if msg_id in comparison.known or msg_id in comparison.met:
            if not self._trusts_known:
                return None
            self._pipeline.stats.duplicates += 1
            return settled(offset)
        line = b"" if self._with_offsets is None else self._line(offset)
        return Entry(offset, subject, msg_id, data, line, self._floor, self._checked_at)

    def _correction(self, item: Captured[P], subject: bytes, key: bytes) -> Entry[P] | None:
        """Return the entry of a correction, or of a round that has corrections already; None: as `make`."""
        round_, offset = item.round, item.offset
        if self._corrections.must_ask(key, self._read_at, self._pipeline.lease.length_s):
            return None
        line = b"" if self._with_offsets is None else self._line(offset)
        is_first = not (item.is_correction or round_.voided)
        source = source_of(self._offset_text or b"") if line else b""
        numbered = self._revisions.number(round_, key, has_offset=bool(line), is_first=is_first, source=source)
        if numbered is None:
            self._pipeline.stats.corrections_skipped += 1
            return settled(offset)
        self._pipeline.stats.corrections += 1
        return Entry(
            offset,
            corrections_subject(round_.game_slug).encode(),
            id_of(numbered),
            numbered.round.to_json(),
            line,
            self._floor,
            self._checked_at,
            lane=subject,
            correction=numbered,
        )

    def _line(self, offset: P) -> bytes:
        """Return the header line of an offset; the rounds of a transaction share one."""
        text = self._with_offsets.offset_text(offset) if self._with_offsets is not None else None
        if text is not self._offset_text:
            self._offset_text = text
            self._offset_line = b"" if text is None else offset_header(text)
        return self._offset_line

    def _subject(self, slug: str) -> bytes:
        subject = log_subject(slug).encode()
        if len(self._subjects) < _SUBJECTS_KEPT:
            self._subjects[slug] = subject
        return subject


def settled(offset: P) -> Entry[P]:
    """Return an entry for an item that is not sent, so that its offset is confirmed in its turn."""
    entry = Entry(offset, b"", b"", b"")
    entry.settled = True
    return entry


def _msg_id(round_: Round) -> bytes:
    # A round that was not validated may hold anything; a line break would start another header.
    number: object = round_.round_id
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise TypeError(f"round_id {number!r:.40} is not an integer from 0 to 2^63-1")
    return dedup_id(round_.game_slug, round_.round_id).encode()
