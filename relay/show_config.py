"""``stream-relay config``: what is in force, secrets masked."""

import json
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from relay.settings import Settings, variables

if TYPE_CHECKING:
    from pydantic import BaseModel


def show(settings: Settings, *, as_json: bool) -> None:
    """Print every setting with its value; which are the defaults can be seen at a glance."""
    if as_json:
        json.dump(settings.model_dump(mode="json"), sys.stdout, indent=2)
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
        table.add_row(variable, "-" if value is None else str(value), "set" if given else "")
    for name, value in settings.backend.options.items():
        table.add_row(f"RELAY_BACKEND_{name.upper()}", str(value), "set")
    Console(soft_wrap=True).print(table)
