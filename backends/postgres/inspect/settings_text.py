"""Write settings of a backend as text: a TOML file, and the variables of the environment. Pure."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from backends.postgres.dsn import Dsn

_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_BARE: Final = re.compile(r"\A[A-Za-z0-9_-]+\Z", re.ASCII)


def as_toml(name: str, options: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> str:
    """Write the section ``backend``.

    Args:
        name: The backend.
        options: Its options.
        tables: The options of each table.
    """
    if len(tables) == 1:
        options = {**options, **tables[0]}
        tables = ()
    lines = ["[backend]", *(_line(*entry) for entry in {"name": name, **options}.items())]
    for table in tables:
        lines += ["", "[[backend.tables]]", *(_line(*entry) for entry in table.items())]
    return "\n".join(lines) + "\n"


def as_variables(name: str, options: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the same as variables of the environment, one ``NAME=value`` each, quoted for a shell."""
    own = tables[0] if len(tables) == 1 else {"tables": [dict(table) for table in tables]}
    options = {**options, **own}
    return [
        f"RELAY_BACKEND_{option.upper()}={shlex.quote(_text(value))}"
        for option, value in {"name": name, **options}.items()
    ]


def without_password(dsn: str) -> str:
    """Return a DSN without its passwords; libpq then takes them from PGPASSWORD or a password file."""
    parsed = Dsn.parse(dsn)
    user = parsed.user_part.removesuffix("@").partition(":")[0]
    kept = {name: value for name, value in parsed.parameters.items() if name not in _SECRETS}
    query = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
    return f"postgresql://{f'{user}@' if user else ''}{','.join(parsed.hosts)}{parsed.path}{query}"


def _line(name: str, value: Any) -> str:
    return f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else _string(str(value))


def _string(text: str) -> str:
    # A basic string of TOML: JSON has the same escapes, and DEL has to be escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.match(name) else _string(name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
