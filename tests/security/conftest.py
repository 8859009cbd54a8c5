"""Servers with the accounts of infra/."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.security.accounts import PASSWORDS, accounts, server_of
from tests.security.guarded import Guarded, guarded_by

_RELAYS: Final = "relays = [RELAY, ADMIN"
_SECOND: Final = """
  RELAY_2 {
    users: [{ user: second, password: of-second }]
    imports: $relay_imports
  }
}
"""


def second_account(text: str) -> str:
    """Add an account for other relays, which may import the same."""
    return text.replace(_RELAYS, f"{_RELAYS}, RELAY_2").rstrip().removesuffix("}").rstrip() + _SECOND


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give nats-server the passwords as an operator does."""
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def guarded(tmp_path: Path, passwords: None) -> AsyncIterator[Guarded]:
    """A server with infra/nats.conf, a log with rounds, and a second account for relays."""
    async with guarded_by(server_of(tmp_path, text=second_account(accounts()))) as ready:
        yield ready
