"""``stream-relay key audit``: show the audit log, and follow it."""

import asyncio
from typing import Any, Final

import msgspec

from relay.audit.audit_entry import AuditEntry
from relay.commands.keys import working
from relay.commands.keys.key_tables import audit_line

_LOOK_S: Final = 1.0
"""Between looks at the stream: an operator reads, no machine waits."""


def show_audit(*, last: int, follow: bool, refused: bool, as_json: bool) -> None:
    """Print the newest entries; with `follow` also the changes that are made from then on."""

    async def work(parts: Any, _actor: Any) -> None:
        sequence = await parts.audit.last_change()
        for entry in await parts.audit.newest(last, refused=refused):
            _print(entry, as_json=as_json)
        while follow:
            await asyncio.sleep(_LOOK_S)
            async for number, entry in parts.audit.changes_after(sequence):
                sequence = number
                _print(entry, as_json=as_json)

    working.administer(work)


def _print(entry: AuditEntry, *, as_json: bool) -> None:
    print(msgspec.json.encode(entry).decode() if as_json else audit_line(entry), flush=True)
