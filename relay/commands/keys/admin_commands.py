"""The commands ``stream-relay admin``: credentials of the admin API, and the process that serves it."""

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from relay.commands.keys import working

admin_app = typer.Typer(no_args_is_help=True, help="Make admin credentials, and serve the admin API.")

Id = Annotated[str, typer.Argument(help="The id of the credential.", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def add_to(app: typer.Typer, load: Callable[..., Any]) -> None:
    """Add the commands; `load` reads the settings, or ends the program with an error."""
    working.load_with(load)
    app.add_typer(admin_app, name="admin")


@admin_app.command()
def create(
    admin_id: Annotated[str, typer.Argument(help="Its id, which the audit log shows.", metavar="[ID]")] = "admin",
    expires: Annotated[str | None, typer.Option(help="A duration such as 90d, a date, a time, or never.")] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It can look at everything and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a credential for the admin API. Its secret is shown once, on stdout."""
    from datetime import datetime

    from relay.commands.keys.key_tables import print_json
    from relay.commands.keys.key_values import expiry

    until = None if expires is None else working.parsed(expiry, "--expires", expires, now=time.time())

    async def work(parts: Any, actor: Any) -> None:
        await parts.make_streams()
        moment = None if until is None else datetime.fromisoformat(until).timestamp()
        credential, secret = await parts.admins.create(actor, admin_id, expires_at=moment, read_only=read_only)
        if as_json:
            print_json({**credential.document(), "secret": secret})
            return
        print(f"admin credential {admin_id!r}, not shown again:", file=sys.stderr)
        print(secret, flush=True)

    working.administer(work)


@admin_app.command("list")
def list_admins(as_json: Json = False) -> None:
    """List all admin credentials."""
    from relay.commands.keys.key_tables import ago, print_json, print_rows

    async def work(parts: Any, actor: Any) -> None:
        found = await parts.admins.all()
        if as_json:
            print_json([credential.document() for credential in found])
            return
        if not found:
            print("there are no admin credentials; make one with: stream-relay admin create", file=sys.stderr)
            return
        columns = ("id", "secret begins", "may", "status", "created")
        print_rows(
            columns,
            (
                [
                    one.id,
                    one.prefix,
                    "read" if one.read_only else "change",
                    "active" if one.is_valid(time.time()) else "disabled" if one.disabled else "expired",
                    ago(one.created_at),
                ]
                for one in found
            ),
        )

    working.administer(work)


@admin_app.command()
def disable(admin_id: Id) -> None:
    """Refuse a credential; `enable` takes that back."""
    _switch(admin_id, disabled=True)


@admin_app.command()
def enable(admin_id: Id) -> None:
    """Accept a disabled credential again."""
    _switch(admin_id, disabled=False)


@admin_app.command()
def delete(admin_id: Id, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a credential for ever. To take it back for a while, use `disable`."""

    async def work(parts: Any, actor: Any) -> None:
        how = f"admin delete: add --yes to delete {admin_id!r} without a question"
        working.confirm(f"Delete admin credential {admin_id!r}?", how, yes=yes)
        await parts.admins.delete(actor, admin_id)
        print(f"deleted {admin_id}", file=sys.stderr)

    working.administer(work)


@admin_app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 lets the system choose.")] = None,
) -> None:
    """Serve the admin API, as a process of its own."""
    from relay.admin.api.serve_admin import serve_admin
    from relay.admin.chosen_store import chosen_store
    from relay.commands.run import run

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = working.load({"admin": given} if given else {})

    async def whole() -> None:
        await serve_admin(settings, chosen_store(settings))

    run(whole())


def _switch(admin_id: str, *, disabled: bool) -> None:
    async def work(parts: Any, actor: Any) -> None:
        await parts.admins.disable(actor, admin_id, disabled=disabled)
        print(f"{'disabled' if disabled else 'enabled'} {admin_id}", file=sys.stderr)

    working.administer(work)
