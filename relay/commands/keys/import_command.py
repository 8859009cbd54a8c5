"""``stream-relay key import``: take over the keys of the environment and of the keys file."""

import sys
from typing import Any

from auth.key_forms import read_keys
from relay.commands.keys import working
from relay.commands.keys.key_tables import print_json, print_rows
from relay.commands.run import fail
from relay.config.files import read_text_file


def take_over(*, dry_run: bool, as_json: bool) -> None:
    """Create those keys that the store does not have, and say what became of each."""
    settings = working.load(log_level="error")
    given = settings.auth

    async def work(parts: Any, actor: Any) -> None:
        file_text = "" if given.keys_file is None else read_text_file(given.keys_file, "RELAY_AUTH_KEYS_FILE")
        found = read_keys(text=given.keys.get_secret_value(), file_text=file_text)
        if not found:
            fail("key import: neither RELAY_AUTH_KEYS nor RELAY_AUTH_KEYS_FILE has a key")
        results = await parts.keys(actor).take_over(found, dry_run=dry_run)
        if as_json:
            print_json([result._asdict() for result in results])
        else:
            print_rows(("id", "result", ""), ([result.key_id, result.result, result.detail] for result in results))
        created = sum(result.result == "created" for result in results)
        print(f"{created} of {len(results)} keys {'would be' if dry_run else 'were'} created", file=sys.stderr)
        if any(result.result in ("differs", "same_secret") for result in results):
            fail("some keys were not taken over; see the table")

    working.administer(work, settings=settings)
