"""Number the corrections of rounds: which state of a round the log has, and which revision a change of it becomes.

Pure: no I/O. Owns four rules. A revision is one more than the newest that the log holds, and at least 2; a state equal
to the newest is none; a change that the source yields again, after a crash, is recognised by the time of its commit and
its content, in the order in which the source yielded it; and a change that was committed before one that another source
has stored is none. Why: docs/adr/0036-corrections-in-the-log.md
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from rounds import InvalidRound, Round, dedup_id

_STATES_KEPT: Final = 64
"""Of one round. Older ones are not recognised when they are yielded again; only a row that is changed so often within
what is unconfirmed has more."""
VOIDED: Final = 1
"""The `content_digest` of every void."""


class RevisionState(NamedTuple):
    """One revision, by the time of its commit and a digest of its content."""

    committed_ms: int
    """Unix milliseconds; 0: not known. Not its offset: a source may yield a change again with another one."""
    content: int


class _Commit(NamedTuple):
    """What one source knows of a change."""

    source: bytes
    state: RevisionState
    """The time is that of the commit, or a little earlier, when it was written."""

    def is_not_after(self, stored: "_Commit") -> bool:
        """Whether this change of another source was committed before `stored`, or is the same."""
        if self.source == stored.source:
            return False
        return self.state.committed_ms < stored.state.committed_ms or self.state == stored.state


_NO_COMMIT: Final = _Commit(b"", RevisionState(0, 0))


class NumberedChange(NamedTuple):
    """A change as it was numbered."""

    round: Round
    """As it is in the log, with its revision."""
    state: RevisionState
    key: bytes
    """The id of the round itself."""
    is_first: bool
    """Whether the source yielded it as a round that was finished, not as a correction."""


class _Round:
    """What is known of one round that has corrections."""

    __slots__ = (
        "before",
        "first",
        "first_ms",
        "newest_stored",
        "origin",
        "other",
        "passed",
        "states",
        "stored",
        "stored_state",
        "stored_upto",
    )

    def __init__(self) -> None:
        self.states: list[RevisionState] = []  # consecutive revisions, those of the log first
        self.first = 2  # the revision of states[0]
        self.newest_stored = 1  # the newest revision that was read from the log
        self.stored_state = RevisionState(0, 0)
        self.first_ms = 0  # when the oldest revision that was read from the log was committed
        self.stored = self.other = _NO_COMMIT  # the newest one, and the newest one of another source
        self.passed = 1  # the revision up to which the source has yielded its changes, as far as known
        self.before = 1  # the newest revision before those of the log were loaded
        self.stored_upto = 1  # the newest revision of this source that the log has, as of the last `pass_stored`
        self.origin = 0  # when the round itself was committed, until the source has passed it; 0: not known

    @property
    def newest(self) -> int:
        return self.first + len(self.states) - 1

    def append(self, state: RevisionState) -> None:
        self.states.append(state)
        if len(self.states) > _STATES_KEPT:
            self.first += 1
            del self.states[0]

    def store(self, revision: int, state: RevisionState) -> None:
        """Take a revision that the log holds."""
        if revision <= self.newest:
            if self.first <= revision:
                self.states[revision - self.first] = state
        elif self.states and revision == self.newest + 1:
            self.append(state)
        else:  # the first known one, or those before it were deleted
            self.states, self.first = [state], revision
        if revision >= self.newest_stored:
            self.newest_stored, self.stored_state = revision, state

    def store_commit(self, commit: _Commit) -> None:
        """Take the source of the newest revision."""
        self.first_ms = self.first_ms or commit.state.committed_ms
        if commit.source != self.stored.source:
            self.other = self.stored
        self.stored = commit

    def is_older(self, change: _Commit, *, is_first: bool) -> bool:
        """Whether a change is, or was committed before, one that another source of the same rounds has stored.

        A round that was finished before its oldest revision is the round itself, which another source may have stored.
        """
        if is_first and change.state.committed_ms < self.first_ms:
            return True
        return change.is_not_after(self.stored) or change.is_not_after(self.other)

    def drop_pending(self) -> None:
        """Forget the revisions that were not read from the log."""
        self.before = self.newest
        if self.newest_stored < self.first:
            self.states = [self.stored_state] if self.newest_stored > 1 else []
            self.first = max(2, self.newest_stored)
        else:
            del self.states[self.newest_stored + 1 - self.first :]

    def pass_stored(self, unsettled: Mapping[int, int]) -> None:
        """Find the newest revision of this source that the log has; `unsettled` has the contents of those in flight.

        The others up to `before` are settled. One that is older than a settled one must not follow it.
        """
        stored = 1
        for revision in range(max(self.first, min(unsettled)), min(self.before, self.newest) + 1):
            known = self.at(revision)
            if known is not None and unsettled.get(revision, known.content) == known.content:
                stored = revision
        self.stored_upto = max(stored, min(unsettled) - 1)
        self.passed = self.stored_upto

    def at(self, revision: int) -> RevisionState | None:
        return self.states[revision - self.first] if self.first <= revision <= self.newest else None

    def number(self, state: RevisionState, *, is_first: bool) -> int | None:
        """Return the revision that a change becomes; None: it becomes none."""
        if is_first and self.origin and self.origin == state.committed_ms:
            self.origin = 0
            return None
        if state.committed_ms:
            for revision in range(max(self.first, self.passed + 1), self.newest + 1):
                if self.at(revision) == state:
                    self.passed = revision
                    return None
        for revision in (self.passed, self.newest):
            known = self.at(revision)
            if known is not None and known.content == state.content:
                self.passed = max(self.passed, revision)
                return None
        self.append(state)
        self.passed = self.newest
        return self.newest


class RevisionNumbers:
    """The rounds that have corrections, in the log or in flight. About 600 bytes each."""

    def __init__(self, most: int) -> None:
        """Keep at most so many rounds; those whose newest correction is the oldest are forgotten first."""
        self._most = most
        self._rounds: dict[bytes, _Round] = {}
        self._pending: set[bytes] = set()  # of changes that were numbered and not read from the log
        self.is_complete = True
        """Whether nothing was forgotten: what is not in here has no corrections in the log."""

    @property
    def rounds(self) -> Collection[bytes]:
        """The ids of the rounds that have corrections, as they are from now on: for a check of every round."""
        return self._rounds

    def __len__(self) -> int:
        return len(self._rounds)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rounds

    def number(
        self, round_: Round, key: bytes, *, has_offset: bool, is_first: bool, source: bytes = b""
    ) -> NumberedChange | None:
        """Number a change that the source yields; None: it becomes no revision.

        Args:
            round_: The round after the change.
            key: The id of the round itself.
            has_offset: Whether the source has offsets, and its timestamps are those of commits.
            is_first: Whether it was yielded as a round that was finished. Only for a round that is in here.
            source: The name of the source, if it has offsets.
        """
        state = _state_of(round_, has_offset=has_offset)
        known = self._moved_to_end(key)
        if has_offset and known.is_older(_Commit(source, state), is_first=is_first):
            return None
        revision = known.number(state, is_first=is_first)
        if revision is None:
            return None
        self._pending.add(key)
        return NumberedChange(msgspec.structs.replace(round_, revision=revision), state, key, is_first)

    def begin_loading(self) -> None:
        """Forget which revisions were given to what is in flight, before what the log has is read."""
        for key in self._pending:
            if (known := self._rounds.get(key)) is not None:
                known.drop_pending()
        self._pending.clear()

    def load(self, round_: Round, *, has_offset: bool, source: bytes = b"") -> None:
        """Take a correction that the log holds, in its order, with an offset of `source` or without one."""
        key = dedup_id(round_.game_slug, round_.round_id).encode()
        known, state = self._moved_to_end(key), _state_of(round_, has_offset=has_offset)
        known.store(round_.revision, state)
        if has_offset and known.newest_stored == round_.revision:
            known.store_commit(_Commit(source, state))

    def load_origins(self, ids: Iterable[bytes], offsets: Iterable[str], data: Iterable[bytes]) -> None:
        """Take the times of rounds that the log holds, of which it has corrections."""
        for msg_id, offset, text in zip(ids, offsets, data, strict=True):
            known = self._rounds.get(msg_id)
            if known is not None and offset:
                with suppress(InvalidRound):  # of another program
                    known.origin = Round.parse(text).timestamp

    def renumber(self, unsettled: Iterable[NumberedChange]) -> list[NumberedChange | None]:
        """Number again what was numbered and may be stored, in the order of the source, after loading.

        None: the log has it, or a later state that this process has stored meanwhile, or it is no revision any more.
        """
        numbered = list(unsettled)
        contents: dict[bytes, dict[int, int]] = {}
        for one in numbered:
            contents.setdefault(one.key, {})[one.round.revision] = one.state.content
        for key, by_revision in contents.items():
            self._moved_to_end(key).pass_stored(by_revision)
        again: list[NumberedChange | None] = []
        for one in numbered:
            known = self._moved_to_end(one.key)
            if one.round.revision <= known.stored_upto:
                again.append(None)
                continue
            revision = known.number(one.state, is_first=False)
            if revision is None:
                again.append(None)
                continue
            self._pending.add(one.key)
            again.append(one._replace(round=msgspec.structs.replace(one.round, revision=revision)))
        return again

    def clear(self) -> None:
        """Forget everything: the log is another one."""
        self._rounds.clear()
        self._pending.clear()
        self.is_complete = True

    def _moved_to_end(self, key: bytes) -> _Round:
        known = self._rounds.pop(key, None)
        if known is None:
            known = _Round()
            if len(self._rounds) >= self._most:
                self.is_complete = False
                del self._rounds[next(iter(self._rounds))]
        self._rounds[key] = known
        return known


def _state_of(round_: Round, *, has_offset: bool) -> RevisionState:
    return RevisionState(round_.timestamp if has_offset else 0, content_digest(round_))


def content_digest(round_: Round) -> int:
    """Return a number of 64 bits that is the same for the same content. All voids are the same.

    The time of the commit is no content.
    """
    if round_.voided:
        return VOIDED
    # The parts contain no line break, except for `extras`, which is the last.
    return _digest(f"{round_.game_type}\n{round_.finished_at}\n{round_.extras}".encode()) or 2


def _digest(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest())
