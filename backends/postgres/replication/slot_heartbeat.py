"""Write messages into the write-ahead log at intervals, so that a slot advances in an idle database.

When it is needed: docs/postgres-replication.md
"""

import asyncio

import structlog

from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.statements import statement

log = structlog.get_logger()


async def write_heartbeats(options: ReplicationOptions) -> None:
    """Write heartbeats over a connection of its own, and reconnect when it breaks; return at once if they are off."""
    every_s, timeout_s = options.heartbeat_s, options.connect_timeout_s
    while every_s:
        try:
            link = await ReplicationConnection.connect(options, replication=False)
            try:
                while True:
                    await link.query(statement("emit_heartbeat"), timeout_s)
                    await asyncio.sleep(every_s)
            finally:
                await link.close()
        except StreamLost as error:
            log.warning("heartbeat_failed", **options.log_fields, error=str(error))
        await asyncio.sleep(every_s)
