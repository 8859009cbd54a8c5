"""``stream-relay config``: what is in force, secrets masked."""

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.settings import Settings, masked, variables

if TYPE_CHECKING:
    from pydantic import BaseModel


def show(settings: Settings, *, as_json: bool) -> None:
    """Print every setting with its value; which are the defaults can be seen at a glance."""
    if as_json:
        json.dump(_masked_tree("", settings.model_dump(mode="json")), sys.stdout, indent=2)
        print()
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("")
    for variable, path in variables().items():
        if path == "config":
            continue
        section, _, field = path.partition(".")
        holder: BaseModel = getattr(settings, section) if field else settings
        value = getattr(holder, field or section)
        given = (field or section) in holder.model_fields_set and (not field or section in settings.model_fields_set)
        table.add_row(variable, _shown(path, value), "set" if given else "")
    for name, value in settings.backend.options.items():
        table.add_row(f"RELAY_BACKEND_{name.upper()}", _shown(name, value), "set")
    Console(soft_wrap=True).print(table)


def _shown(name: str, value: object) -> Text:
    return Text("-" if value is None else masked(name, str(value)))


def _masked_tree(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked_tree(key, inner) for key, inner in value.items()}
    return masked(name, value) if isinstance(value, str) and value else value
