"""The supervisor: starts a process again that has ended by itself, and reports its end as a finding.

After a fault nothing of ours may end by itself: it would hide behind whatever restarts it.
"""

import asyncio
from contextlib import suppress
from typing import Final

from tests.faults.installation import Installation
from tests.faults.parts import Part
from tests.faults.values import Finding

_LOOK_EVERY_S: Final = 0.2
_RESTART_S: Final = 1.0


async def supervise(installation: Installation, findings: list[Finding]) -> None:
    """Watch all processes until cancelled."""
    while True:
        for part in installation.parts:
            if part.ended_by_itself:
                finding = Finding("ended", part.name, f"exit status {part.exit_code}; {last_line(part)}")
                if finding not in findings:
                    findings.append(finding)
                await asyncio.sleep(_RESTART_S)
                with suppress(AssertionError, TimeoutError):  # it has ended again: the next turn reports it
                    await installation.restart(part)
        await asyncio.sleep(_LOOK_EVERY_S)


def last_line(part: Part) -> str:
    """The last line that it printed."""
    lines = part.printed().strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"
