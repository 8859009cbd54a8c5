"""Tables of keys, usage and audit entries for a terminal; JSON for programs."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.audit.audit_entry import AuditEntry

Document = Mapping[str, Any]

_WIDE: Final = 10_000


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print(flush=True)


def print_rows(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on stdout: as wide as its terminal, or as wide as it needs for a pipe."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell in (None, "") else str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table, crop=sys.stdout.isatty())


def key_rows(documents: Iterable[Document]) -> Iterable[list[object]]:
    """Yield a row of `KEY_COLUMNS` for each key."""
    for key in documents:
        prefixes = [secret["prefix"] for secret in key["secrets"]]
        yield [
            key["id"],
            key["name"],
            f"{key['kind']}{', test' if key['test'] else ''}",
            key["status"],
            ", ".join(prefix or "?" for prefix in prefixes),
            reads(key),
            _day(key["expires_at"]),
            ago(key["last_used"]),
        ]


KEY_COLUMNS = ("id", "name", "kind", "status", "secret begins", "reads", "expires", "last used")


def reads(key: Document) -> str:
    """Describe which games a key reads."""
    if key["games"] is None and not key["types"]:
        return "all games"
    return ", ".join([*(key["games"] or ()), *(f"type {name}" for name in key["types"])])


def key_fields(key: Document) -> Iterable[list[object]]:
    """Yield the name and value of each member of a key."""
    for name, value in key.items():
        if name == "secrets":
            shown = ", ".join(_secret(secret) for secret in value)
        elif name == "limits":
            shown = ", ".join(f"{limit}={number}" for limit, number in value.items()) or "defaults"
        elif name == "games" and value is None:
            shown = "all" if not key["types"] else ""
        elif name == "last_used":
            shown = ago(value)
        elif isinstance(value, list):
            shown = ", ".join(map(str, value))
        else:
            shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield [name.replace("_", " "), shown]


def audit_line(entry: AuditEntry) -> str:
    """Render an entry in one line."""
    of = f" (of {entry.of})" if entry.of else ""
    where = f" from {entry.address}" if entry.address else ""
    changed = "; ".join(_differences(entry.before, entry.after))
    detail = ", ".join(f"{name}={value}" for name, value in (entry.detail or {}).items())
    said = " ".join(filter(None, (entry.outcome, changed, detail)))
    return f"{entry.at} {entry.actor}{where}: {entry.action} {entry.target}{of}{': ' if said else ''}{said}"


def ago(moment: float | str | None) -> str:
    """Describe how long ago a time (Unix seconds, or RFC 3339) is."""
    if not moment:
        return ""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).timestamp()
    seconds = max(0, round(time.time() - moment))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _differences(before: Document | None, after: Document | None) -> Iterable[str]:
    if before is None or after is None:
        return
    for name, value in after.items():
        if before.get(name) != value:
            yield f"{name}: {_json(before.get(name))} -> {_json(value)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _secret(secret: Document) -> str:
    until = f" until {secret['expires_at']}" if secret["expires_at"] else ""
    return f"{secret['prefix'] or '?'}...{until}"


def _day(text: str | None) -> str:
    return "" if text is None else text[:10]
