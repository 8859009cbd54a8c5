"""The programs that tests start."""

import os
import sys

import pytest

from tests.clients.program import Program

pytestmark = pytest.mark.service


def test_program_that_has_ended_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process id may be that of another test's program by then."""
    with Program([sys.executable, "-c", "print('done'); raise SystemExit(3)"]) as program:
        assert program.wait() == 3
        sent = list[tuple[int, int]]()
        monkeypatch.setattr(os, "killpg", lambda group, number: sent.append((group, number)))
        assert program.stop() == 3

    assert sent == []
    assert program.printed == ["done"]
