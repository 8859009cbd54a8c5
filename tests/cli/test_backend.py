"""``stream-relay backend`` for a backend that has nothing to set up, and for one without its database."""

import pytest

from backends.contract import BackendError
from backends.postgres.admin import admin_of
from backends.registry import known_backends
from relay.commands.backend import WITH_ADMIN
from tests.cli.command import assert_one_line, run

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["setup"], "backend 'file' needs no set-up;"),
        (["setup", "--print"], "backend 'file' needs no set-up;"),
        (["teardown"], "backend 'file' has no set-up that could be removed;"),  # and asks nothing before
        (["check"], "backend 'file' needs nothing that could be checked;"),
        (["status"], "backend 'file' has no state outside its process, whose port tells it (RELAY_INGEST_PORT);"),
        (["backfill"], "backend 'file' has no table to fill the log from; stream-relay ingest reads all it has;"),
    ],
)
def test_command_that_has_nothing_to_do_says_why(arguments: list[str], sentence: str) -> None:
    """Each in words of its own, with the backends that it is for."""
    outcome = run("backend", *arguments, "--backend", "file")

    assert_one_line(outcome, sentence, "this command is for: postgres-notify, postgres-replication")


@pytest.mark.parametrize("command", ["status", "backfill"])
def test_unknown_backend_lists_the_known_ones(command: str) -> None:
    """As everywhere else."""
    assert_one_line(run("backend", command, "--backend", "foo"), "unknown backend 'foo'; known backends: file, ")


def test_commands_are_for_every_backend_that_has_a_care() -> None:
    """A backend that gets one is not refused by the commands."""
    cared_for = []
    for name in known_backends():
        try:
            admin_of(name, {"dsn": "postgresql://127.0.0.1/test"})
        except BackendError:
            continue
        cared_for.append(name)

    assert tuple(cared_for) == WITH_ADMIN
