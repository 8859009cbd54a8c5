"""``stream-relay config``: print the settings, with secrets masked."""

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.config.settings import Settings, masked, origins, variables

if TYPE_CHECKING:
    from pydantic import BaseModel


def show(settings: Settings, *, as_json: bool) -> None:
    """Print every setting with its value and the source of the value."""
    if as_json:
        json.dump(_masked_tree("", settings.model_dump(mode="json")), sys.stdout, indent=2)
        print()
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", no_wrap=True)
    given_by = origins()
    for variable, path in variables().items():
        if path == "config":
            continue
        section, _, field = path.partition(".")
        holder: BaseModel = getattr(settings, section) if field else settings
        value = getattr(holder, field or section)
        table.add_row(variable, _shown(path, value), given_by.get(path, "default"))
    for name, value in settings.backend.options.items():
        table.add_row(f"RELAY_BACKEND_{name.upper()}", _shown(name, value), given_by.get(f"backend.{name}", "default"))
    Console(soft_wrap=True).print(table)


def _shown(name: str, value: object) -> Text:
    return Text("-" if value is None else masked(name, str(value)) or "-")


def _masked_tree(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked_tree(key, inner) for key, inner in value.items()}
    return masked(name, value) if isinstance(value, str) and value else value
