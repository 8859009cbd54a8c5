"""Show what keys have used, as a table or as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from relay.admin.key_document import time_or_none
from relay.commands.keys.key_tables import ago, print_json, print_rows
from relay.usage.usage_form import KeyUsage, total
from relay.usage.usage_reader import UsageByHour

_COUNTS = ("links", "links_max", "links_opened", "rounds", "bytes", "requests", "log_rounds", "refused")


def show_usage(found: UsageByHour, *, key_id: str | None, by: Literal["total", "hour", "day"], as_json: bool) -> None:
    """Print the figures of one key, or of all."""
    rows = [row for name in sorted(found) if key_id in (None, name) for row in _rows(name, found, by)]
    if as_json:
        print_json([{"key": name, "time": when, **_all(figures)} for name, when, figures in rows])
        return
    columns = ["key", *(["from"] if by != "total" else []), *(name.replace("_", " ") for name in _COUNTS), "last used"]
    print_rows(
        columns,
        (
            [name, *([when] if by != "total" else []), *(_grouped(figures, count) for count in _COUNTS), _used(figures)]
            for name, when, figures in rows
        ),
    )


def _rows(
    name: str, found: UsageByHour, by: Literal["total", "hour", "day"]
) -> Iterator[tuple[str, str | None, KeyUsage]]:
    hours = found[name]
    if by == "total":
        yield name, None, total(hours)
        return
    step = 3600 if by == "hour" else 86_400
    for start in sorted({hour // step * step for hour in hours}):
        when = datetime.fromtimestamp(start, UTC).isoformat().replace("+00:00", "Z")
        yield name, when, total({hour: figures for hour, figures in hours.items() if hour // step * step == start})


def _all(figures: KeyUsage) -> dict[str, int | str | None]:
    counts = {name: getattr(figures, name) for name in _COUNTS}
    return {**counts, "last_used": time_or_none(int(figures.last_used))}


def _grouped(figures: KeyUsage, name: str) -> str:
    return f"{getattr(figures, name):,}"


def _used(figures: KeyUsage) -> str:
    return ago(figures.last_used)
