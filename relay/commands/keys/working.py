"""Run a command on the parts of administration, as the operating system's user.

Imports what a command needs when it runs: `serve` is on the cold-start path of serverless platforms.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from relay.admin.administration import Administration
    from relay.audit.audit_entry import Actor

    Work = Callable[[Administration, Actor], Awaitable[None]]

T = TypeVar("T")

_load: Callable[..., Any]


def load_with(load: Callable[..., Any]) -> None:
    """Set the function that reads the settings with overrides, or ends the program with an error."""
    global _load
    _load = load


def load(overrides: dict[str, Any] | None = None, *, log_level: str | None = None) -> Any:
    """Load the settings; end the program with a sentence when they are wrong."""
    return _load(overrides or {}, log_level=log_level)


def parsed(read: Callable[..., T], *given: Any, **more: Any) -> T:
    """Return what `read` makes of given arguments; end the program with a sentence when they are wrong."""
    from relay.admin.admin_errors import InvalidChange
    from relay.commands.run import fail

    try:
        return read(*given, **more)
    except InvalidChange as error:
        fail(str(error))


def confirm(question: str, how: str, *, yes: bool) -> None:
    """Ask before something is removed for ever; end the program when nobody can be asked, or the answer is no."""
    import sys

    import typer

    from relay.commands.run import fail

    if yes:
        return
    if not sys.stdin.isatty():
        fail(how)
    typer.confirm(question, abort=True, err=True)


def administer(work: "Work", *, imports: bool = False) -> None:
    """Open the parts and await `work`; end the program with a sentence when it fails.

    Args:
        work: What the command does.
        imports: Whether it takes keys over from the environment.
    """
    from relay.admin.administration import administering
    from relay.admin.chosen_store import chosen_store, store_to_import_into
    from relay.commands.run import run

    settings = load(log_level="error")
    choose = store_to_import_into if imports else chosen_store

    async def whole() -> None:
        async with administering(settings, choose(settings)) as parts:
            await work(parts, _os_user())

    run(whole())


def _os_user() -> "Actor":
    """Return who runs the command, and from where if that is known."""
    import getpass
    import os
    import socket

    from relay.audit.audit_entry import Actor

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        user = f"uid-{os.getuid()}"
    address = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    return Actor("os_user", f"{user}@{socket.gethostname()}", address)
