"""Notice that a connection leads to a standby where our slot cannot be read, and say how to reach the primary.

Such a server is reached by a DSN with several hosts, the first of which is a standby, or during a failover. Its
missing slot is not lost.
"""

from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions, run_statement


class StandbyReached(StreamLost):
    """The server is a standby, and the slot cannot be read there. Another attempt may reach the primary."""


async def refuse_standby(link: ReplicationConnection, options: ReplicationOptions) -> None:
    """Raise `StandbyReached` on a standby without a slot of its own that we can read."""
    (row,) = await run_statement(link, options, "read_standby", slot=options.slot)
    if row["is_standby"] == "t":
        raise StandbyReached(standby_sentence(options))


def standby_sentence(options: ReplicationOptions) -> str:
    """Write what is wrong, and what to set."""
    attribute = "target_session_attrs=read-write"
    what = f"{options.shown_dsn} is a standby now, where replication slot {options.slot!r} cannot be read"
    if options.target.parameters.get("target_session_attrs"):
        return f"{what}; the option 'dsn' has to reach the primary"
    mark = "&" if options.target.parameters else "?"
    return f"{what}; add {mark}{attribute} to the option 'dsn', with the primary among its hosts"
