"""The order of the faults of one step."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.campaign import Result, Run
from tests.faults.kinds.fault import Fault
from tests.faults.kinds.table import FAULTS, names_for
from tests.faults.plan import FaultPlan, Step, plan


async def test_last_fault_of_a_step_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that edits the log cannot undo this while a later one has frozen the server."""
    order: list[str] = []

    class Recording(Fault):
        kind = "freeze"

        async def begin(self) -> None:
            order.append(f"begin {self.name}")

        async def end(self) -> None:
            order.append(f"end {self.name}")

    for name in ("first", "second"):
        monkeypatch.setitem(FAULTS, name, type(name, (Recording,), {"name": name}))
    schedule = plan(1, names_for)
    installation: Any = SimpleNamespace(schedule=schedule, postgres=None)
    run = Run(schedule, installation, Result(schedule))

    await run.step(Step((FaultPlan("first", 1), FaultPlan("second", 2)), hold_s=0.0, settles=False))

    assert order == ["begin first", "begin second", "end second", "end first"]
