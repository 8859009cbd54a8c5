"""Secrets on the command line: every account of a machine can read the arguments of its processes.

Owns the warning for a secret that was given so, and what to use instead. Arguments without a secret cause none.
"""

import re
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import typer

from relay.commands.run import fail

_KEY_BYTES: Final = 4096
"""More than any key."""
_PASSWORD: Final = re.compile(r"(?:^|[\s?&;])(?:ssl)?password\s*=\s*[^\s&]", re.IGNORECASE)
"""In the parameters of a URL, or in a DSN of the form ``host=... password=...``."""
_SECRET_NAME: Final = re.compile(r"password|secret|token|api_?key|credential", re.IGNORECASE)


def warned_key(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Return a key; warn when it came from the command line. The demo's key is no secret."""
    from auth.key_secret import DEMO_KEY

    if value and value != DEMO_KEY and _is_argument(context, parameter):
        _warn("--key shows the key", "set API_KEY, or use --key-file (- for standard input)")
    return value


def key_from_file(value: str | None) -> str | None:
    """Read the key of ``--key-file``; ``-`` is standard input. None when the option was not given."""
    if value is None:
        return None
    try:
        with sys.stdin.buffer if value == "-" else Path(value).open("rb") as file:
            key = file.read(_KEY_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        fail(f"--key-file {value} cannot be read: {error.strerror or error}")
    if not key:
        fail(f"--key-file {value} has no key; it must contain one")
    return key


def warned_url(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Return the URL of a relay; warn when it has a password and came from the command line."""
    if _is_argument(context, parameter) and _has_password(value):
        _warn("--url shows a password", "set BASE_URL")
    return value


def warned_dsn(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Return the DSN of a DBA; warn when it has a password and came from the command line."""
    if value is not None and _is_argument(context, parameter) and _has_password(value):
        _warn("--dsn shows a password", "set ADMIN_DSN, or leave the password to a password file (PGPASSFILE)")
    return value


def warn_of_option(name: str, value: str) -> None:
    """Warn when an option of a backend on the command line has a secret."""
    if not value or not (_SECRET_NAME.search(name) or _has_password(value)):
        return
    file = ", or leave the password to a password file (PGPASSFILE)" if name == "dsn" else ""
    _warn(f"-o {name}=... shows a secret", f"set RELAY_BACKEND_{name.upper()}{file}")


def _is_argument(context: typer.Context, parameter: typer.CallbackParam) -> bool:
    source = context.get_parameter_source(str(parameter.name))
    return source is not None and source.name == "COMMANDLINE"


def _has_password(value: str) -> bool:
    try:
        return bool(urlsplit(value).password) or _PASSWORD.search(value) is not None
    except ValueError:  # no URL: the command reports it
        return False


def _warn(what: str, instead: str) -> None:
    print(f"stream-relay: warning: {what} to every account of this machine; {instead}", file=sys.stderr)
