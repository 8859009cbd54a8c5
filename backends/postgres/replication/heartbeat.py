"""Write messages into the server's own log at intervals, so that a slot moves on in a database where nothing happens.

Who needs it: docs/postgres-replication.md
"""

import asyncio

import structlog

from backends.postgres.replication.protocol.connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.statements import statement

log = structlog.get_logger()


async def beat(options: ReplicationOptions) -> None:
    """Write heartbeats, if the options want them, over a connection of its own. Losing it loses nothing."""
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
