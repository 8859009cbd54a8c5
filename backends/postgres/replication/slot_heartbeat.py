"""Write messages into the write-ahead log, so that the server can remove WAL that it keeps for our slot.

Owns when a message is needed: always at an interval if the options say so, and else once the server keeps WAL that
nobody reads. Owns the estimate of what the server keeps. Why: docs/adr/0039-wal-that-nobody-reads.md
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions, run_statement

log = structlog.get_logger()

_LOOK_S: Final = 5.0
_LOOKS: Final = 4
"""Looks within ``sender_timeout_s``, at least."""
_EFFECT_S: Final = 30.0
"""Time for a message to take effect: the server logs its open transactions every 15 s, and then we confirm."""


class KeptWal:
    """How much WAL the server keeps for a slot, from one look at the slot after another. Pure.

    ``restart_lsn`` alone is not enough: the server updates which WAL it may remove only when ``catalog_xmin`` of the
    slot moves too. While no transaction writes, ``restart_lsn`` advances and no WAL is removed.
    """

    def __init__(self) -> None:
        self._released = 0  # up to here the server may remove WAL
        self._catalog_xmin: str | None = None

    def kept_bytes(self, *, head: int, restart: int, catalog_xmin: str | None) -> int:
        """Take what the server says of the slot; return the bytes that it keeps. Exact from the first move that we see.

        Args:
            head: Where the WAL ends.
            restart: ``restart_lsn`` of the slot.
            catalog_xmin: ``catalog_xmin`` of the slot, only compared.
        """
        if catalog_xmin != self._catalog_xmin or self._released > restart or not self._released:
            self._catalog_xmin, self._released = catalog_xmin, restart
        return max(0, head - self._released)


async def write_heartbeats(options: ReplicationOptions, leads: Callable[[], bool]) -> None:
    """Write messages over a connection of its own, and reconnect when it breaks; return at once if none are wanted.

    Args:
        options: With the interval, and how much WAL may be kept.
        leads: Returns whether this process reads the slot. One that does not writes only at the interval.
    """
    looks_s = min(_LOOK_S, options.sender_timeout_s / _LOOKS)
    every_s = options.heartbeat_s or looks_s
    now = asyncio.get_running_loop().time
    kept, written_at, reported = KeptWal(), float("-inf"), ""
    while options.heartbeat_s or options.release_wal_bytes:
        try:
            if not (options.heartbeat_s or leads()):
                await asyncio.sleep(looks_s)
                continue
            link = await ReplicationConnection.connect(options, replication=False)
            try:
                while True:
                    is_due = bool(options.heartbeat_s)
                    if not is_due and leads() and now() - written_at > _EFFECT_S:
                        is_due = await _is_needed(link, options, kept)
                    if is_due:
                        await run_statement(link, options, "emit_heartbeat")
                        written_at = now()
                    reported = ""
                    await asyncio.sleep(every_s)
            finally:
                await link.close()
        except StreamLost as error:
            if reported != str(error):
                reported = str(error)
                log.warning("heartbeat_failed", **options.log_fields, error=reported)
        await asyncio.sleep(every_s)


async def _is_needed(link: ReplicationConnection, options: ReplicationOptions, kept: KeptWal) -> bool:
    """Whether the server keeps WAL that is not waiting for us, and can be written to."""
    slot = next(iter(await run_statement(link, options, "read_slot_status", slot=options.slot)), None)
    if slot is None or slot["is_standby"] == "t" or slot["restart"] is None:
        return False
    head, restart, behind = (int(slot[name] or 0) for name in ("head", "restart", "lag_bytes"))
    bytes_ = kept.kept_bytes(head=head, restart=restart, catalog_xmin=slot["catalog_xmin"])
    if bytes_ - behind < options.release_wal_bytes:
        return False
    log.debug("wal_released", **options.log_fields, kept_bytes=bytes_)
    return True
