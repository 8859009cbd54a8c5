"""Whether the log holds what its server took for a duplicate.

nats-server remembers an id for its duplicate window, also when the message was purged, deleted or discarded meanwhile:
it then acks the round as a duplicate, and stores nothing. Such a round is published again, with an id that the server
does not know; see `rounds.subjects.resent_id`. Why: docs/adr/0036-corrections-in-the-log.md
"""

from collections.abc import Mapping
from typing import NamedTuple

from roundlog.client.connection import Connection
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import id_of_leader, ids_at


class Duplicate(NamedTuple):
    """What the server said of a round that it did not store."""

    msg_id: bytes
    """The round's own id, without what `resent_id` added."""
    sequence: int
    """Where the log has it, or had it."""


async def held_of(connection: Connection, settings: LogSettings, duplicates: Mapping[int, Duplicate]) -> set[int]:
    """Return the numbers of those that the log holds.

    Raises:
        LogError: The log cannot be read.
    """
    info = await read_log(connection, settings)
    asked = {number: one for number, one in duplicates.items() if one.sequence >= info.first}
    found = await ids_at(connection, info.stream, {one.sequence for one in asked.values()})
    held = set()
    for number, (msg_id, sequence) in asked.items():
        at = found.get(sequence)
        if at is None and info.replicas > 1:
            # The replica that answered may be behind.
            at = await id_of_leader(connection, info.stream, sequence)
        if at == msg_id:
            held.add(number)
    return held
