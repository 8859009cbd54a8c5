"""``stream-relay key import``: take over the keys of the environment and of the keys file."""

import sys
from typing import Any

from relay.admin.chosen_store import keys_by_hand
from relay.commands.keys import working
from relay.commands.keys.key_tables import print_json, print_rows
from relay.commands.run import fail


def take_over(*, dry_run: bool, as_json: bool) -> None:
    """Create those keys that the store does not have, and say what became of each."""

    async def work(parts: Any, actor: Any) -> None:
        given = parts.settings.auth
        found = keys_by_hand(given)
        if not found:
            fail("key import: neither RELAY_AUTH_KEYS nor RELAY_AUTH_KEYS_FILE has a key")
        results = await parts.keys(actor).take_over(found, dry_run=dry_run)
        if as_json:
            print_json([result._asdict() for result in results])
        else:
            print_rows(("id", "result", ""), ([result.key_id, result.result, result.detail] for result in results))
        created = sum(result.result == "created" for result in results)
        print(f"{created} of {len(results)} keys {'would be' if dry_run else 'were'} created", file=sys.stderr)
        if given.store == "auto" and not dry_run:
            print("to let relays read this store, set RELAY_AUTH_STORE=nats", file=sys.stderr)
        if any(result.result in ("differs", "same_secret") for result in results):
            fail("some keys were not taken over; see the table")

    working.administer(work, imports=True)
