"""What ``backend init`` found, as text for people and as JSON for programs. Without passwords.

Owns the form of both. Pure but for printing.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from backends.postgres.findings import Finding
from backends.postgres.inspect.facts import ServerFacts
from backends.postgres.inspect.preview import Preview
from backends.postgres.inspect.propose import Proposal
from backends.postgres.inspect.settings_text import as_toml, as_variables, without_password

_ORDER: Final = ("rounds", "unfinished", "voided", "other", "rejected")


@dataclass(frozen=True, slots=True)
class InitReport:
    """The result of one run."""

    server: ServerFacts
    where: str
    """Host and database, without a password."""
    backend: str
    proposals: tuple[Proposal, ...]
    others: tuple[Proposal, ...]
    """Tables that were not chosen, although they look a little like rounds."""
    previews: tuple[Preview, ...]
    sql: tuple[str, ...]
    """What `stream-relay backend setup` runs."""
    findings: tuple[Finding, ...]
    """What `stream-relay backend check` has to say now, without what is right."""
    options: Mapping[str, Any]
    """Options of the backend, with the DSN."""
    tables: tuple[Mapping[str, Any], ...]
    grant_to: str | None = None
    """The role of ingest if it is not the owner of all tables."""

    @property
    def shown_options(self) -> dict[str, Any]:
        """The options of the backend, with a DSN that has no password."""
        return {**self.options, "dsn": without_password(str(self.options["dsn"]))}

    @property
    def grant(self) -> str:
        """The option of `stream-relay backend setup` for `grant_to`."""
        return "" if self.grant_to is None else f" --grant-to {shlex.quote(self.grant_to)}"

    @property
    def has_password(self) -> bool:
        """Whether the DSN has a password, which is not shown."""
        return bool(self.shown_options["dsn"] != self.options["dsn"])

    @property
    def unknown_games(self) -> tuple[str, ...]:
        """Games that the tables have and the catalogue lacks."""
        return tuple(dict.fromkeys(slug for proposal in self.proposals for slug in proposal.unknown_games))


def print_report(report: InitReport, out: Path | None) -> None:
    """Print the report for a person; `out` is the file that has been written, None: none yet."""
    server = report.server
    typer.echo(f"PostgreSQL {server.version // 10000} at {report.where}, as role {server.role}")
    for proposal, preview in zip(report.proposals, report.previews, strict=True):
        _print_proposal(proposal)
        print_preview(preview)
    if report.others:
        typer.echo(
            f"\nnot taken: {', '.join(other.table.full_name for other in report.others)}; to take one: --table NAME"
        )
    _print_games(report.unknown_games)
    _print_steps(report)
    toml = as_toml(report.backend, report.shown_options, report.tables)
    variables = as_variables(report.backend, report.shown_options, report.tables)
    typer.echo(f"\nsettings{f', written to {out}' if out else ''}:\n\n{_indented(toml)}")
    typer.echo(f"the same in the environment:\n\n{_indented(chr(10).join(variables))}\n")


def print_next(report: InitReport, out: Path | None) -> None:
    """Print what to run next; `out` is the file with the settings, None: there is none."""
    if report.has_password:
        hidden = "The password of the DSN is not shown"
        typer.echo(f"{hidden}; {out} has it, and only you may read that file.\n" if out else f"{hidden}.\n")
    config = f" --config {out}" if out is not None and out.suffix != ".env" else ""
    command = f"stream-relay{config}"
    typer.echo(f"next: {command} backend setup{report.grant} && {command} backend check && {command} ingest")


def print_preview(preview: Preview) -> None:
    """Print what the rows of one table become."""
    if preview.unread:
        typer.echo(f"\n  rows of {preview.table.source} could not be shown: {preview.unread}")
        return
    if preview.rounds:
        typer.echo(f"\n  {_count(len(preview.rounds), 'round')} as clients see them, without the cursor:")
        for round_ in preview.rounds:
            typer.echo(f"    {round_.to_json().decode()}")
    counts = ", ".join(f"{preview.counts[name]:,} {name}" for name in _ORDER if preview.counts[name])
    typer.echo(f"\n  of {_count(preview.rows, 'row')} read: {counts or 'none is there yet'}")
    for each in preview.rejects:
        typer.echo(f"    {each.count:,} rejected, such as {each.key}: {each.reason}")


def preview_value(preview: Preview) -> dict[str, Any]:
    """Return a preview as JSON values."""
    return {
        "table": preview.table.source,
        "rounds": [json.loads(round_.to_json()) for round_ in preview.rounds],
        "rows": preview.rows,
        **{name: preview.counts[name] for name in _ORDER if name != "rounds"},
        "finished": preview.counts["rounds"],
        "rejected_because": [{"reason": each.reason, "row": each.key, "rows": each.count} for each in preview.rejects],
        **({"unread": preview.unread} if preview.unread else {}),
    }


def print_table(report: InitReport) -> None:
    """Print the report as JSON."""
    settings = {"name": report.backend, **report.shown_options}
    settings |= {"tables": list(report.tables)} if len(report.tables) > 1 else report.tables[0]
    value = {
        "server": {"version": report.server.version, "where": report.where, "role": report.server.role},
        "settings": settings,
        "toml": as_toml(report.backend, report.shown_options, report.tables),
        "environment": as_variables(report.backend, report.shown_options, report.tables),
        "reasons": {proposal.table.full_name: dict(proposal.reasons) for proposal in report.proposals},
        "previews": list(map(preview_value, report.previews)),
        "unknown_games": list(report.unknown_games),
        "setup_sql": list(report.sql),
        "findings": [{"verdict": str(finding.verdict), "text": finding.text} for finding in report.findings],
        "not_taken": [other.table.full_name for other in report.others],
    }
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_proposal(proposal: Proposal) -> None:
    table = proposal.table
    size = f", about {_count(table.estimated_rows, 'row')}" if table.estimated_rows else ""
    typer.echo(f"\ntable {table.full_name}{size}:")
    for option, value in proposal.options.items():
        reason = proposal.reasons.get(option, "")
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"  {option:<28} {shown}{f'   # {reason}' if reason else ''}")
    for note in proposal.notes:
        typer.echo(f"  {note}")


def _print_games(unknown: Sequence[str]) -> None:
    if not unknown:
        return
    typer.echo(f"\nnot in the catalogue of games, so their rows would be rejected: {', '.join(unknown)}")
    typer.echo("  add those that you stream to a file, and set RELAY_GAMES_FILE to it, for ingest and relays:\n")
    for slug in unknown[:10]:
        typer.echo(f'    [games.{slug}]\n    type = "multiplier"   # or color, trending, slots, or a type of yours')


def _print_steps(report: InitReport) -> None:
    typer.echo(
        f"\nto be done by the owner of the tables: run `stream-relay backend setup{report.grant}`, or this SQL:\n"
    )
    typer.echo(_indented("\n".join(f"{sql.rstrip(';')};" for sql in report.sql)))
    if report.findings:
        typer.echo("\nwhat `stream-relay backend check` says before that:\n")
        for finding in report.findings:
            typer.echo(f"  {finding.verdict:8} {finding.text}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines()) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
