"""Rounds whose time is in a JSON document: both backends take it that an UPDATE may finish them."""

from typing import Any

import pytest

from backends.contract import Captured
from backends.postgres.findings import Verdict
from backends.postgres.source_admin import admin_of
from tests.postgres.ingesting import notify_backend
from tests.postgres.ingesting import reading as notify_reading
from tests.postgres.reading import make_backend, reading
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

DOCUMENTS: dict[str, Any] = {
    "table": "documents", "game_slug": "crash", "round_id_column": "data.no", "finished_at_column": "data.ended",
    "extras_column": "data.result", "order_column": "id",
}  # fmt: skip
FINISH = """UPDATE documents SET data = data || '{"ended": "2026-01-18T10:00:30Z", "result": {"point": 2}}'"""


async def test_documents_that_get_their_time_by_update_become_rounds(postgres: PostgresServer) -> None:
    """Setup makes what that needs, also for paths; check and the reader agree with it."""
    await postgres.execute("CREATE TABLE documents (id bigserial PRIMARY KEY, data jsonb NOT NULL)")
    common = {**DOCUMENTS, "dsn": postgres.dsn()}
    backends = [("postgres-replication", common), ("postgres-notify", {**common, "rows_deleted": False})]
    for name, options in backends:
        await admin_of(name, options).set_up(None)
    await postgres.execute("""INSERT INTO documents (data) VALUES ('{"no": 7}')""")
    for name, options in backends:
        findings = await admin_of(name, options).check()
        assert [one for one in findings if one.verdict is Verdict.FAILURE or "UPDATE" in one.text] == []

    await postgres.execute("ALTER PUBLICATION stream_relay SET (publish = 'insert')")
    findings = await admin_of("postgres-replication", common).check()
    (fault,) = [one.text for one in findings if one.verdict is Verdict.FAILURE]  # since there is such a row
    assert "does not publish updates" in fault
    await postgres.execute("ALTER PUBLICATION stream_relay SET (publish = 'insert, update')")

    async with (
        reading(make_backend(postgres, **DOCUMENTS)) as by_replication,
        notify_reading(notify_backend(postgres, rows_deleted=False, **DOCUMENTS)) as by_notify,
    ):
        await postgres.execute(FINISH)
        await by_replication.seen(1)
        assert await by_notify.reach(1) == [7]
        assert [item.round.round_id for item in by_replication.items if isinstance(item, Captured)] == [7]
