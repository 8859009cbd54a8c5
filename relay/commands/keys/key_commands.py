"""The commands ``stream-relay key`` that work on the key store."""

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal

import typer

from relay.commands.keys import working
from relay.commands.run import fail

_LIST_DAYS: Final = 7

Id = Annotated[str, typer.Argument(help="The id of the key.", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str | None, typer.Option(help="For people: whose key it is.")]
Games = Annotated[list[str] | None, typer.Option("--game", help="A game that it reads; can be repeated. None: all.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="A type whose games it reads; can be repeated.")]
Origins = Annotated[
    list[str] | None, typer.Option("--origin", help="An origin of pages that use a public key; can be repeated.")
]
Limits = Annotated[
    list[str] | None, typer.Option("--limit", help="NAME=NUMBER, or NAME=default; can be repeated.", metavar="LIMIT")
]
Addresses = Annotated[
    list[str] | None, typer.Option("--address", help="A network from which it is accepted; can be repeated.")
]
Expires = Annotated[str | None, typer.Option(help="A duration such as 90d, a date, a time, or never.")]


def add_to(app: typer.Typer, load: Callable[..., Any]) -> None:
    """Add the commands; `load` reads the settings, or ends the program with an error."""
    working.load_with(load)
    for name, command in _COMMANDS.items():
        app.command(name)(command)


def create(
    key_id: Annotated[str | None, typer.Argument(help="Its id; by default made of --name.", metavar="[ID]")] = None,
    kind: Annotated[
        Literal["private", "public"], typer.Option(help="private: for servers; public: for browsers.")
    ] = "private",
    name: Name = None,
    game: Games = None,
    type_: Types = None,
    origin: Origins = None,
    limit: Limits = None,
    address: Addresses = None,
    expires: Expires = None,
    test: Annotated[bool, typer.Option("--test", help="Make a test key: its secret begins with sk_test_.")] = False,
    as_json: Json = False,
) -> None:
    """Create a key. Its secret is shown once; relays accept it within a second."""
    from relay.admin.key_document import id_of_name

    given = working.parsed(_members, name, game, type_, origin, limit, address, expires)
    members = {
        "id": key_id or id_of_name(name or "") or f"key-{int(time.time()):x}",
        "kind": kind,
        "test": test,
        **given,
    }

    async def work(keys: Any, parts: Any) -> None:
        _show_new(await keys.create(members), as_json=as_json)

    _run(work)


def list_keys(as_json: Json = False) -> None:
    """List all keys. Last used: within the last 7 days, over all relays."""
    from relay.commands.keys.key_tables import KEY_COLUMNS, key_rows, print_json, print_rows

    async def work(keys: Any, parts: Any) -> None:
        found, faults = await keys.all_and_faults()
        documents = await _documents(parts, found)
        if as_json:
            print_json(documents)
        elif documents:
            print_rows(KEY_COLUMNS, key_rows(documents))
        else:
            print("there are no keys; make one with: stream-relay key create", file=sys.stderr)
        for fault in faults:
            print(f"no key: {fault}", file=sys.stderr)

    _run(work)


def show(key_id: Id, as_json: Json = False) -> None:
    """Show all members of a key."""
    from relay.commands.keys.key_tables import key_fields, print_json, print_rows

    async def work(keys: Any, parts: Any) -> None:
        stored = await keys.get(key_id)
        [document] = await _documents(parts, [stored.key])
        document["revision"] = stored.revision
        if as_json:
            print_json(document)
        else:
            print_rows(("member", "value"), key_fields(document))

    _run(work)


def set_members(
    key_id: Id,
    name: Name = None,
    game: Games = None,
    type_: Types = None,
    all_games: Annotated[bool, typer.Option("--all-games", help="Let it read all games.")] = False,
    origin: Origins = None,
    limit: Limits = None,
    address: Addresses = None,
    any_address: Annotated[bool, typer.Option("--any-address", help="Accept it from any address.")] = False,
    expires: Expires = None,
    as_json: Json = False,
) -> None:
    """Change members of a key; each option replaces what was there. Open connections follow within a second."""

    patch = working.parsed(_members, name, game, type_, origin, limit, address, expires)
    if all_games:
        patch |= {"games": None, "types": None}
    if any_address:
        patch["addresses"] = None
    if not patch:
        fail("key set: give at least one of the options that --help lists")

    async def work(keys: Any, parts: Any) -> None:
        stored = await keys.change(key_id, patch)
        await _show_changed(parts, stored, as_json=as_json)

    _run(work)


def disable(key_id: Id, as_json: Json = False) -> None:
    """Refuse a key and end its connections, within a second; `enable` takes that back."""
    _switch(key_id, "disable", as_json=as_json)


def enable(key_id: Id, as_json: Json = False) -> None:
    """Accept a disabled key again."""
    _switch(key_id, "enable", as_json=as_json)


def rotate(
    key_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays valid; 0: not at all.")] = "24h",
    as_json: Json = False,
) -> None:
    """Give a key a new secret, which is shown once."""
    from relay.commands.keys.key_values import duration_s

    overlap_s = working.parsed(duration_s, "--overlap", overlap)

    async def work(keys: Any, parts: Any) -> None:
        new = await keys.rotate(key_id, overlap_s=overlap_s)
        _show_new(new, as_json=as_json)

    _run(work)


def delete(key_id: Id, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a key for ever and end its connections. To take it back for a while, use `disable`."""

    async def work(keys: Any, parts: Any) -> None:
        stored = await keys.get(key_id)
        question = f"Delete key {key_id!r} ({stored.key.name or stored.key.kind})?"
        working.confirm(question, f"key delete: add --yes to delete {key_id!r} without a question", yes=yes)
        await keys.delete(key_id)
        print(f"deleted {key_id}", file=sys.stderr)

    _run(work)


def usage(
    key_id: Annotated[
        str | None, typer.Argument(help="The id of the key; by default all keys.", metavar="[ID]")
    ] = None,
    since: Annotated[str, typer.Option(help="How far back.")] = "24h",
    by: Annotated[Literal["total", "hour", "day"], typer.Option(help="One row for each.")] = "total",
    as_json: Json = False,
) -> None:
    """Show what keys have used, over all relays, by UTC."""
    from relay.commands.keys.key_values import duration_s
    from relay.commands.keys.usage_table import show_usage

    since_s = working.parsed(duration_s, "--since", since)

    async def work(keys: Any, parts: Any) -> None:
        if key_id is not None:
            await keys.get(key_id)  # an unknown id is an error, one that was not used has no rows
        found = await parts.usage.since(time.time() - since_s)
        show_usage(found, key_id=key_id, by=by, as_json=as_json)

    _run(work)


def revoke(
    token: Annotated[str | None, typer.Option(help="The id of a stream token: its jti.")] = None,
    subject: Annotated[str | None, typer.Option(help="A subject, as the identity provider names it.")] = None,
    for_: Annotated[str, typer.Option("--for", help="How long it is refused.")] = "24h",
    issued_before_now: Annotated[
        bool, typer.Option("--issued-before-now", help="Accept tokens that the subject gets from now on.")
    ] = False,
) -> None:
    """Refuse a single token, or all tokens of a subject, and end their connections within a second."""
    from relay.commands.keys.key_values import duration_s

    if (token is None) == (subject is None):
        fail("key revoke: give either --token or --subject")
    what: Literal["token", "subject"] = "subject" if token is None else "token"
    value = str(subject if token is None else token)
    for_s = working.parsed(duration_s, "--for", for_)

    async def work(keys: Any, parts: Any) -> None:
        await keys.revoke(what, value, for_s=for_s, only_issued_before_now=issued_before_now)
        print(f"revoked {what} {value}", file=sys.stderr)

    _run(work)


def import_keys(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take over the keys of RELAY_AUTH_KEYS and RELAY_AUTH_KEYS_FILE, with their hashes. Can be repeated."""
    from relay.commands.keys.import_command import take_over

    take_over(dry_run=dry_run, as_json=as_json)


def audit(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many entries.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with the changes that are made.")] = False,
    refused: Annotated[bool, typer.Option(help="Show refused credentials as well.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show who changed what, and which credentials were refused."""
    from relay.commands.keys.audit_command import show_audit

    show_audit(last=last, follow=follow, refused=refused, as_json=as_json)


def _switch(key_id: str, verb: Literal["disable", "enable"], *, as_json: bool) -> None:
    async def work(keys: Any, parts: Any) -> None:
        await _show_changed(parts, await getattr(keys, verb)(key_id), as_json=as_json)

    _run(work)


def _run(work: Callable[[Any, Any], Awaitable[None]]) -> None:
    async def with_keys(parts: Any, actor: Any) -> None:
        await work(parts.keys(actor), parts)

    working.administer(with_keys)


def _members(
    name: str | None,
    games: list[str] | None,
    types: list[str] | None,
    origins: list[str] | None,
    limit: list[str] | None,
    addresses: list[str] | None,
    expires: str | None,
) -> dict[str, Any]:
    """Return the members that were given."""
    from relay.commands.keys.key_values import expiry, limits

    given = {"name": name, "games": games, "types": types, "allowed_origins": origins, "addresses": addresses}
    members: dict[str, Any] = {member: value for member, value in given.items() if value not in (None, [])}
    if limit:
        members["limits"] = limits(limit)
    if expires is not None:
        members["expires_at"] = expiry("--expires", expires, now=time.time())
    return members


async def _documents(parts: Any, keys: list[Any]) -> list[dict[str, Any]]:
    """Return keys as they are shown, with their last use as far as it is known: a change is done without it."""
    from relay.admin.key_document import document_of, status_of_key, time_or_none
    from relay.usage.usage_form import total
    from roundlog.log_errors import LogError

    used = {}
    try:
        used = await parts.usage.since(time.time() - _LIST_DAYS * 86_400)
    except LogError as error:
        print(f"when keys were used is not known: {parts.denied(error)}", file=sys.stderr)
    return [
        {
            **document_of(key),
            "status": status_of_key(key),
            "last_used": time_or_none(int(total(used.get(key.id, {})).last_used)),
        }
        for key in keys
    ]


async def _show_changed(parts: Any, stored: Any, *, as_json: bool) -> None:
    from relay.commands.keys.key_tables import key_fields, print_json, print_rows

    [document] = await _documents(parts, [stored.key])
    document["revision"] = stored.revision
    if as_json:
        print_json(document)
    else:
        print_rows(("member", "value"), key_fields(document))


def _show_new(new: Any, *, as_json: bool) -> None:
    """Print the secret on stdout, for pipes, and what it is on stderr. A terminal shows the value below its name."""
    from relay.admin.key_document import document_of
    from relay.commands.keys.key_tables import print_json, reads

    document: Mapping[str, Any] = document_of(new.key)
    if as_json:
        print_json({**document, "revision": new.revision, "secret": new.secret})
        return
    until = f", until {document['expires_at']}" if document["expires_at"] else ""
    print(f"key {new.key.id!r} reads {reads(document)}{until}", file=sys.stderr)
    for old in document["secrets"][1:]:
        print(f"the old secret {old['prefix'] or '?'}... is accepted until {old['expires_at']}", file=sys.stderr)
    print("its secret, not shown again:", file=sys.stderr)
    print(new.secret, flush=True)


_COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "create": create,
    "list": list_keys,
    "show": show,
    "set": set_members,
    "disable": disable,
    "enable": enable,
    "rotate": rotate,
    "delete": delete,
    "usage": usage,
    "revoke": revoke,
    "import": import_keys,
    "audit": audit,
}
