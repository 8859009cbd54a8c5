"""The judge of a client: every round of its selection once, in order, or a gap that covers it. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from tests.faults.values import Chain, Entry, Finding, Gap, Key, LogRecord, Place, View, some


def judge_client(view: View, log: LogRecord, numbers: Mapping[Key, int], *, whole: bool = True) -> list[Finding]:
    """Judge all that a client received.

    Args:
        view: What it asked for, and what it received.
        log: Every entry that the log has had.
        numbers: The place of each round in the order of commits.
        whole: The last chain must reach the head of the log; otherwise it may end anywhere.
    """
    findings: list[Finding] = []
    for index, chain in enumerate(view.chains):
        is_last = index == len(view.chains) - 1
        up_to = log.head if whole and is_last else chain.position
        findings += _judge(view, chain, log, numbers, up_to)
    return findings


def _due(view: View, chain: Chain, log: LogRecord, numbers: Mapping[Key, int], up_to: int) -> list[Entry]:
    """Return the entries that a chain must have received up to a sequence, or have been sent a gap for."""
    return [
        entry
        for entry in log.in_order()
        if entry.sequence <= up_to and view.selection.matches(entry) and _is_after_begin(chain, entry, numbers)
    ]


def newest_due(view: View, chain: Chain, log: LogRecord, numbers: Mapping[Key, int]) -> Entry | None:
    """Return the last entry that a chain must receive, or be sent a gap for; None when there is none."""
    newest_first = reversed(log.entries.values())
    matching = (entry for entry in newest_first if view.selection.matches(entry))
    return next((entry for entry in matching if _is_after_begin(chain, entry, numbers)), None)


def _is_after_begin(chain: Chain, entry: Entry, numbers: Mapping[Key, int]) -> bool:
    if chain.after is not None:
        return entry.sequence > chain.after
    return numbers.get(entry.key, 0) > chain.live_after or _is_after_first(chain, entry)


def _is_after_first(chain: Chain, entry: Entry) -> bool:
    """A client that asked for live rounds gets all of them from the first round, or the first place, on."""
    for item in chain.items:
        match item:
            case Entry(sequence=sequence) | Place(sequence=sequence):
                return entry.sequence > sequence
    return False


def _judge(view: View, chain: Chain, log: LogRecord, numbers: Mapping[Key, int], up_to: int) -> Iterator[Finding]:
    received = [item for item in chain.items if isinstance(item, Entry)]
    gaps = [item for item in chain.items if isinstance(item, Gap)]
    yield from _truthful(view, received, log)
    yield from _ordered(view, chain)
    yield from _gaps(view, gaps, log)
    have = {item.sequence for item in received}
    missing = [
        entry
        for entry in _due(view, chain, log, numbers, up_to)
        if entry.sequence not in have and not any(gap.after < entry.sequence <= gap.to for gap in gaps)
    ]
    kept = [entry.sequence for entry in missing if not log.is_gone(entry.sequence)]
    if kept:
        yield Finding("lost", view.name, f"{len(kept)} rounds up to {up_to} did not come: {some(kept)}")
    unannounced = [
        entry.sequence
        for entry in missing
        if log.is_gone(entry.sequence) and entry.sequence not in log.deleted and view.receives_gaps
    ]
    if unannounced and chain.after is not None:
        yield Finding("no gap", view.name, f"{len(unannounced)} rounds are gone without a gap: {some(unannounced)}")


def _truthful(view: View, received: Sequence[Entry], log: LogRecord) -> Iterator[Finding]:
    unknown = [item.sequence for item in received if log.entries.get(item.sequence) != item]
    if unknown:
        yield Finding("invented", view.name, f"{len(unknown)} rounds are not those of the log: {some(unknown)}")
    if foreign := [item.sequence for item in received if not view.selection.matches(item)]:
        yield Finding("not asked for", view.name, f"{len(foreign)} rounds do not match: {some(foreign)}")


def _ordered(view: View, chain: Chain) -> Iterator[Finding]:
    seen: set[int] = set()
    newest = -1 if chain.after is None else chain.after
    twice, behind = [], []
    for item in chain.items:
        match item:
            case Entry(sequence=sequence):
                if sequence in seen or (not seen and sequence <= newest):
                    twice.append(sequence)
                elif sequence < newest:
                    behind.append(sequence)
                seen.add(sequence)
                newest = max(newest, sequence)
            case Gap(to=to):
                newest = max(newest, to)
            case Place():
                pass  # what comes after it is compared with what was due
    if twice:
        yield Finding("doubled", view.name, f"{len(twice)} rounds came again: {some(twice)}")
    if behind:
        yield Finding("reordered", view.name, f"{len(behind)} rounds came after later ones: {some(behind)}")


def _gaps(view: View, gaps: Sequence[Gap], log: LogRecord) -> Iterator[Finding]:
    for gap in gaps:
        there = [
            sequence
            for sequence, entry in log.entries.items()
            if gap.after < sequence <= gap.to and not log.is_gone(sequence) and view.selection.matches(entry)
        ]
        if there or gap.to <= gap.after:
            yield Finding("false gap", view.name, f"{gap} covers {len(there)} rounds that the log has: {some(there)}")


def judge_pages(name: str, game: str, sequences: Sequence[int], log: LogRecord, *, newest_due: int) -> list[Finding]:
    """Judge one walk through the history of a game, newest first, from its newest round to the oldest.

    `newest_due`: what the pages begin with, at least.
    """
    findings = []
    if list(sequences) != sorted(set(sequences), reverse=True):
        findings.append(Finding("reordered", name, f"pages are not newest first, each round once: {some(sequences)}"))
    of_game = {sequence for sequence, entry in log.entries.items() if entry.key.game == game}
    if invented := sorted(set(sequences) - of_game):
        findings.append(Finding("invented", name, f"pages have rounds that the log has not: {some(invented)}"))
    newest = max([newest_due, *sequences])
    missing = sorted(
        sequence for sequence in of_game - set(sequences) if sequence <= newest and not log.is_gone(sequence)
    )
    if missing:
        findings.append(Finding("lost", name, f"{len(missing)} rounds are on no page: {some(missing)}"))
    return findings
