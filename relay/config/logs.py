"""Structured logs: past-tense events with fields; JSON lines in production, readable on a terminal.

Secrets never reach a log: every event passes `auth.redact` last, whoever wrote it, and aiohttp's own access log
stays off.
"""

import io
import logging
import sys
from typing import Final, TextIO, cast

import structlog

from auth.redact import redact_event

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Stderr(io.TextIOBase):
    """Standard error as it is at each write: a progress bar takes its place for a while, to let lines go above it."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(*, log_format: str, level: str) -> None:
    """Set up structlog and route the standard library's loggers (aiohttp, nats) through the same end."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    stderr = cast("TextIO", _Stderr())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    end: list[structlog.typing.Processor] = [redact_event]
    if console:
        # Plain tracebacks: rich's show local variables, and keys and tokens are among them.
        plain = structlog.dev.plain_traceback
        end.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain))
    else:
        end[:0] = [structlog.processors.format_exc_info]
        end.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[*shared, *end],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)
