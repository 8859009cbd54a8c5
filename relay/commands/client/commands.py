"""The commands ``tail``, ``replay``, ``history`` and ``export``, which use the public API with a key."""

import csv
import io
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import typer

from relay.commands.run import fail, run
from relay.commands.secret_arguments import key_from_file, warned_key, warned_url

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_FIELDS: Final = ("round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp")
_OF_CORRECTIONS: Final = ("revision", "voided")
_COLUMNS: Final = ("finished_at", "game_slug", "round_id", "extras")
"""Columns of the table; the cursor is added where the terminal is wide enough."""
_UNWRAPPED: Final = 100_000
"""Width when stdout is not a terminal: wider than any round."""

OnRound = Callable[[bytes], None]
"""Called with each round, as JSON, after it has been printed or written."""
Game = Annotated[str | None, typer.Argument(help="The game; all games by default.")]
Protocol = Literal["ws", "sse", "grpc"]
Via = Annotated[
    Protocol | None, typer.Option(help="The protocol to use: ws, or grpc for a grpc:// URL.", show_default=False)
]
Url = Annotated[str, typer.Option(envvar="BASE_URL", callback=warned_url, help="The URL of the relay.")]
_HTTP_PORT: Final = 8080
"""The default HTTP port. With it in the URL, gRPC is at its default port too."""
StreamUrl = Annotated[
    str,
    typer.Option(envvar="BASE_URL", callback=warned_url, help="The URL of the relay; grpc://host:port for gRPC."),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="API_KEY",
        callback=warned_key,
        help="Your API key, better given as API_KEY: other accounts see arguments. The demo's by default.",
    ),
]
KeyFile = Annotated[
    str | None,
    typer.Option(envvar="API_KEY_FILE", callback=key_from_file, help="A file with your API key, - for standard input."),
]
Count = Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after this number of rounds.")]
From = Annotated[str | None, typer.Option("--from", help="Earliest time of a round, such as 2026-01-18T10:00:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="Latest time of a round.")]
After = Annotated[str | None, typer.Option(help="The cursor of the last round that you have.")]
Corrections = Annotated[
    bool, typer.Option("--corrections", help="Also print corrections: rounds with a revision, voided or changed.")
]
Where = Annotated[list[str] | None, typer.Option("--where", help="A filter, such as min_point=2 or colors=red,black.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (tail, replay, history, export):
        app.command()(command)


def tail(
    game: Game = None,
    via: Via = None,
    url: StreamUrl = DEFAULT_URL,
    key: ApiKey = "",
    key_file: KeyFile = None,
    count: Count = None,
    where: Where = None,
    corrections: Corrections = False,
) -> None:
    """Print live rounds, one JSON line each; reconnect without missing a round."""
    parameters = _filters(where) | _asks(corrections)
    run(_print(_followed(game, url, key_file or key, via, parameters), count, nullcontext(lambda _data: None)))


def replay(
    game: Game = None,
    from_: From = None,
    to: To = None,
    after: After = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Begin with this number of newest rounds of each game.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="Multiple of the original cadence; by default without pauses.")
    ] = None,
    via: Via = None,
    url: StreamUrl = DEFAULT_URL,
    key: ApiKey = "",
    key_file: KeyFile = None,
    count: Count = None,
    where: Where = None,
    corrections: Corrections = False,
) -> None:
    """Print past rounds, then live rounds; with --to, stop at that time."""
    from relay.commands.client.progress_bars import time_progress

    given = {"from": from_, "to": to, "after": after, "last": last, "speed": speed}
    if all(value is None for value in given.values()):
        fail("one of --from, --after and --last is needed; --to or --speed alone begin with the oldest round")
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    rounds = _followed(game, url, key_file or key, via, parameters | _filters(where) | _asks(corrections))
    is_long = to is not None and not sys.stdout.isatty()
    title = f"replay of {game or 'all games'}"
    bar = time_progress(title, begin_ms=_moment_ms(from_), end_ms=_moment_ms(to), shown=is_long)
    run(_print(rounds, count, bar))


def history(
    game: Game = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rounds.")] = 20,
    form: Annotated[Literal["table", "jsonl", "csv"], typer.Option("--format", help="Output format.")] = "table",
    from_: From = None,
    to: To = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    key_file: KeyFile = None,
    where: Where = None,
    corrections: Corrections = False,
) -> None:
    """Print past rounds, newest first."""
    given = {"from": from_, "to": to}
    parameters = {name: value for name, value in given.items() if value is not None} | _filters(where)
    parameters |= _asks(corrections)
    run(_print_history(_target(game, url, key_file or key), parameters, limit, form))


def export(
    file: Annotated[Path, typer.Argument(help="A new file: .jsonl, .jsonl.gz or .jsonl.zst.")],
    game: Annotated[str | None, typer.Option(help="The game; all games by default.")] = None,
    from_: From = None,
    to: To = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    key_file: KeyFile = None,
    where: Where = None,
) -> None:
    """Write a range of rounds, by default all, to a recording that the file backend can replay.

    Exits with status 1 when rounds of the range are missing in the log; the file then has the others.
    """
    from datetime import UTC, datetime

    parameters = {"to": to or datetime.now(UTC).isoformat()} | ({} if from_ is None else {"from": from_})
    run(_export(file, _target(game, url, key_file or key), parameters | _filters(where)))


def _target(game: str | None, url: str, key: str, *, schemes: Sequence[str] = ("http", "https")) -> Any:
    from auth.key_secret import DEMO_KEY
    from relay.commands.client.target import Target

    try:
        parts = urlsplit(url)
        is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        is_good = False
    if not is_good:
        fail(f"--url {url!r} is not the address of a relay, such as {schemes[0]}://127.0.0.1:8080")
    return Target(url.rstrip("/"), key or DEMO_KEY, game)


def _followed(
    game: str | None, url: str, key: str, via: Protocol | None, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    from relay.commands.client.follow import follow

    if via is None:
        via = "grpc" if url.lower().startswith(("grpc://", "grpcs://")) else "ws"
    schemes = ("http", "https", "grpc", "grpcs") if via == "grpc" else ("http", "https")
    target = _target(game, url, key, schemes=schemes)
    parts = urlsplit(url)
    if via == "grpc" and parts.scheme in ("http", "https") and parts.port not in (None, _HTTP_PORT):
        fail(f"--url {url!r} is the address of HTTP; give that of gRPC, such as grpc://{parts.hostname}:50051")
    return follow(target, via=via, parameters=parameters, notify=_notify)


async def _print(rounds: Any, count: int | None, bar: AbstractContextManager[OnRound]) -> None:
    async with aclosing(rounds):
        remaining = count
        with bar as on_round:
            async for data in rounds:
                sys.stdout.buffer.write(data + b"\n")
                sys.stdout.buffer.flush()
                on_round(data)
                if remaining is not None:
                    remaining -= 1
                    if remaining == 0:
                        return


async def _print_history(target: Any, parameters: Mapping[str, str], limit: int, form: str) -> None:
    from relay.commands.client.follow import history as pages
    from relay.commands.client.progress_bars import count_progress

    more = _OF_CORRECTIONS if "corrections" in parameters else ()
    with count_progress(f"history of {target.game or 'all games'}", total=limit, shown=limit > 1000) as advance:
        rows = []
        if form == "csv":
            print(",".join((*_FIELDS, *more)))
        async for round_ in pages(target, parameters, limit=limit):
            advance(1)
            if form == "table":
                rows.append(_cells(round_))
            else:
                print(_csv_line(round_, (*_FIELDS, *more)) if form == "csv" else _json_line(round_))
    if form == "table":
        _print_table(rows, (*_COLUMNS, *more))
    sys.stdout.flush()  # here, since `run` handles a closed pipe


def _csv_line(round_: Mapping[str, Any], fields: Sequence[str]) -> str:
    line = io.StringIO()
    cells = _cells(round_)
    csv.writer(line, lineterminator="").writerow([cells[field] for field in fields])
    return line.getvalue()


def _cells(round_: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields of a round, also those that only corrections have."""
    return {"revision": 1, **round_, "voided": "true" if "voided" in round_ else ""}


def _json_line(round_: Mapping[str, Any]) -> str:
    import msgspec

    return msgspec.json.encode(round_).decode()


def _print_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    def table_of(*names: str) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in names:
            table.add_column(name, no_wrap=name != "extras", overflow="fold")
        for round_ in rows:
            table.add_row(*(str(round_[name]) for name in names))
        return table

    console = Console(width=None if sys.stdout.isatty() else _UNWRAPPED)  # one line per round, for grep and awk
    table = table_of(*columns, "cursor")
    if console.measure(table, options=console.options.update(width=_UNWRAPPED)).maximum > console.width:
        table = table_of(*columns)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        print(line.rstrip())  # not by the console, which handles a closed pipe in its own way


async def _export(file: Path, target: Any, parameters: Mapping[str, str]) -> None:
    from relay.commands.client.follow import follow
    from relay.commands.client.progress_bars import time_progress
    from relay.commands.client.recording import recording

    gaps: list[str] = []
    rounds: Any = follow(target, via="ws", parameters=parameters, notify=_notify, on_gap=gaps.append)
    begin_ms, end_ms = _moment_ms(parameters.get("from")), _moment_ms(parameters["to"])
    bar = time_progress(f"export to {file.name}", begin_ms=begin_ms, end_ms=end_ms, shown=True)
    written = 0
    with recording(file) as write, bar as on_round:
        async with aclosing(rounds):
            async for data in rounds:
                if written and not set(gaps) <= {"expired", "deleted"}:
                    break  # the log was rebuilt, and may have rounds that are written already
                write(data)
                written += 1
                on_round(data)
    print(f"{written} rounds written to {file}", file=sys.stderr)
    if gaps:
        fail(f"{file} is incomplete: the log does not have all rounds of the range ({', '.join(dict.fromkeys(gaps))})")


def _moment_ms(text: str | None) -> int | None:
    """Parse a time for a progress bar; None when it is wrong, which the relay reports."""
    from relay.errors import BadRequest
    from relay.history.start import parse_time

    try:
        return None if text is None else parse_time({"moment": text}, "moment")
    except BadRequest:
        return None


def _asks(corrections: bool) -> dict[str, str]:
    return {"corrections": "1"} if corrections else {}


def _filters(where: list[str] | None) -> dict[str, str]:
    from rounds.filter import PARAMETERS

    found = {}
    for text in where or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--where {text!r} is not NAME=VALUE, such as min_point=2")
        if name not in PARAMETERS:  # refused here, before any request
            fail(f"--where {text!r} is not a filter; there are: {', '.join(PARAMETERS)}")
        found[name] = value
    return found


def _notify(sentence: str) -> None:
    print(f"stream-relay: {sentence}", file=sys.stderr)
