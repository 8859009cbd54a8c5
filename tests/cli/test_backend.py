"""``stream-relay backend`` for a backend without set-up, and for an unknown backend."""

import pytest

from backends.contract import BackendError
from backends.postgres.source_admin import admin_of
from backends.registry import known_backends
from relay.commands.backend_commands import BACKENDS_WITH_ADMIN
from tests.cli.command import assert_one_line, run

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["setup"], "backend 'file' needs no set-up;"),
        (["setup", "--print"], "backend 'file' needs no set-up;"),
        (["teardown"], "backend 'file' has no set-up to remove;"),  # without a prompt before
        (["check"], "backend 'file' has nothing to check;"),
        (["status"], "backend 'file' has no state outside its process; see its port RELAY_INGEST_PORT;"),
        (["backfill"], "backend 'file' has no table to backfill from; stream-relay ingest reads all it has;"),
    ],
)
def test_command_that_has_nothing_to_do_says_why(arguments: list[str], sentence: str) -> None:
    """Each command has its own error, which lists the backends with set-up."""
    outcome = run("backend", *arguments, "--backend", "file")

    assert_one_line(outcome, sentence, "this command is for: postgres-notify, postgres-replication")


@pytest.mark.parametrize("command", ["status", "backfill"])
def test_unknown_backend_lists_the_known_ones(command: str) -> None:
    """The error is that of the other commands."""
    assert_one_line(run("backend", command, "--backend", "foo"), "unknown backend 'foo'; known backends: file, ")


def test_commands_are_for_every_backend_with_an_admin() -> None:
    """The commands accept every backend of the table in `backends.postgres.source_admin`."""
    with_admin = []
    for name in known_backends():
        try:
            admin_of(name, {"dsn": "postgresql://127.0.0.1/test"})
        except BackendError:
            continue
        with_admin.append(name)

    assert tuple(with_admin) == BACKENDS_WITH_ADMIN
