"""Put together what the judges say of one run: the log, every client, every walk, every log file."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tests.faults.judge_client import judge_client, judge_pages
from tests.faults.judge_log import doubles, judge_log
from tests.faults.parts import BUGS
from tests.faults.values import Commit, Finding, Gap, Key

if TYPE_CHECKING:
    from tests.faults.campaign import Run


_RAISED: Final = re.compile(r"(?:\\n|^|\s)([\w.]+(?:Error|Exception)\b[^\\\x22\n]{0,120})")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")


def _shown(text: str) -> str:
    """Show of a traceback what was raised."""
    raised = _RAISED.findall(text)
    return _ADDRESS.sub("0x…", raised[-1] if raised else text[:80])


def verdict(run: "Run", commits: Sequence[Commit], numbers: Mapping[Key, int]) -> None:
    """Write findings and figures into the result of a run."""
    result, schedule, record = run.result, run.schedule, run.record
    late_doubles = schedule.window_s < max((step.hold_s for step in schedule.steps), default=0) and any(
        fault.allows_late_doubles for fault in run.faults
    )
    by_id = schedule.backend == "postgres-notify" or any(fault.reorders_by_id for fault in run.faults)
    result.findings += judge_log(commits, record, by_id=by_id, doubles_allowed=late_doubles)
    result.allowed_doubles = len(doubles(record)) if late_doubles else 0
    for client in run.clients:
        result.findings += judge_client(client.view, record, numbers)
        result.findings += [Finding("wrong", client.plan.name, text) for text in client.wrong]
        if client.placeless:
            text = f"came back {client.placeless} times without a place after an orderly end"
            result.findings.append(Finding("no place", client.plan.name, text))
        result.ends.update(client.ends)
        items = (item for chain in client.view.chains for item in chain.items)
        result.gaps.update(item.reason for item in items if isinstance(item, Gap))
        result.deliveries += client.received
    for reader in run.readers:
        if reader.last is None:
            result.findings.append(
                Finding("lost", reader.plan.name, "the history cannot be read when all is well again")
            )
        for walk in reader.walks:
            # While NATS is away, a relay answers with what it has.
            newest_due = record.head if walk is reader.last else 0
            result.findings += judge_pages(reader.plan.name, reader.plan.games[0], walk, record, newest_due=newest_due)
        result.deliveries += reader.received
    for part in run.at.folder.glob("*.log"):
        found = Counter(_shown(match[0]) for match in BUGS.finditer(part.read_text("utf-8", "replace")))
        result.findings += [Finding("bug logged", part.stem, f"{count} times: {text}") for text, count in found.items()]
    result.rounds = len(commits)
