"""The judge of the log: each committed round once, unchanged, in order, and nothing else. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.values import Commit, Entry, Finding, Key, LogRecord, some


def judge_log(
    commits: Sequence[Commit], log: LogRecord, *, by_id: bool = False, doubles_allowed: bool = False
) -> list[Finding]:
    """Compare all that the log has had with what was committed.

    Args:
        commits: In the order of the commits.
        log: Every entry of the log, also those that were purged since.
        by_id: The source may see rounds of later transactions together with earlier ones, and then orders them by id:
            ``postgres-notify``, and every backfill from the table.
        doubles_allowed: A frozen process woke up later than the duplicate window; it may have stored rounds again.
    """
    return [
        *_compare(commits, log),
        *(() if doubles_allowed else _doubled(log)),
        *_reordered(commits, log, by_id=by_id),
    ]


def doubles(log: LogRecord) -> dict[Key, list[int]]:
    """Return the rounds that are in the log more than once, with their sequences.

    A round whose entry was removed may be stored again: a start compares the source with what the log has.
    """
    places: dict[Key, list[int]] = defaultdict(list)
    for entry in log.in_order():
        if not log.is_gone(entry.sequence):
            places[entry.key].append(entry.sequence)
    return {key: found for key, found in places.items() if len(found) > 1}


def _compare(commits: Sequence[Commit], log: LogRecord) -> Iterator[Finding]:
    committed = {commit.key: commit for commit in commits}
    stored = {entry.key: entry for entry in log.in_order()}
    if lost := [commit.key for commit in commits if commit.key not in stored]:
        yield Finding("lost", "the log", f"{len(lost)} of {len(commits)} committed rounds are missing: {some(lost)}")
    if invented := [key for key in stored if key not in committed]:
        yield Finding("invented", "the log", f"{len(invented)} rounds were never committed: {some(invented)}")
    changed = [key for key, entry in stored.items() if key in committed and committed[key].extras != entry.extras]
    if changed:
        yield Finding("changed", "the log", f"{len(changed)} rounds have other extras: {some(changed)}")


def _doubled(log: LogRecord) -> Iterator[Finding]:
    if found := doubles(log):
        shown = some(f"{key} at {places}" for key, places in found.items())
        yield Finding("doubled", "the log", f"{len(found)} rounds are stored more than once: {shown}")


def _reordered(commits: Sequence[Commit], log: LogRecord, *, by_id: bool) -> Iterator[Finding]:
    """Compare each game's first copies with the order of the commits."""
    numbers = {commit.key: commit.number for commit in commits}
    first: dict[Key, Entry] = {}
    for entry in log.in_order():
        first.setdefault(entry.key, entry)
    newest: dict[str, Entry] = {}
    wrong = []
    for entry in first.values():
        if entry.key not in numbers:
            continue
        before = newest.get(entry.key.game)
        if before is None or _may_follow(before, entry, numbers, by_id=by_id):
            newest[entry.key.game] = entry
        else:
            wrong.append(f"{entry.key.round_id} after {before.key.round_id} of {entry.key.game}")
    if wrong:
        yield Finding("reordered", "the log", f"{len(wrong)} rounds are behind later ones of their game: {some(wrong)}")


def _may_follow(before: Entry, entry: Entry, numbers: dict[Key, int], *, by_id: bool) -> bool:
    earlier, later = numbers[before.key], numbers[entry.key]
    if earlier == later:
        return before.key.round_id < entry.key.round_id
    return earlier < later or (by_id and before.key.round_id < entry.key.round_id)
