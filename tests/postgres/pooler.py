"""Run a real PgBouncer in transaction mode in front of a server."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from relay.demo.postgres_programs import command_as, server_account
from tests.postgres_server import PostgresServer

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_START_S = 20.0

_CONFIG = """
[databases]
* = host=127.0.0.1 port={server} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
# Several server connections in turn, so that each transaction of a client gets another one, as under load.
default_pool_size = 4
min_pool_size = 4
server_round_robin = 1
"""


@asynccontextmanager
async def pooler_before(server: PostgresServer, port: int) -> AsyncIterator[str]:
    """Run it in front of `server` for as long as the block lasts; yield the DSN."""
    assert PROGRAM is not None
    account = server_account()
    with tempfile.TemporaryDirectory(prefix="stream-relay-pooler-") as folder:
        config = _configured(Path(folder), account, server=server.port, port=port)
        process = await asyncio.create_subprocess_exec(
            *command_as(account), PROGRAM, config, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await _until_up(process)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


def _configured(folder: Path, account: str | None, **ports: int) -> Path:
    config = folder / "pgbouncer.ini"
    config.write_text(_CONFIG.format(**ports))
    if account is not None:
        shutil.chown(folder, account)
        shutil.chown(config, account)
    return config


async def _until_up(process: asyncio.subprocess.Process) -> None:
    """Read its log until it accepts connections."""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(_START_S):
        async for line in process.stderr:
            said += line
            if b"process up" in line:
                return
    raise AssertionError(f"PgBouncer did not start: {said.decode()}")
