"""Configure structured logs: past-tense events with fields, as JSON lines or as readable lines on a terminal.

Secrets are never logged: `auth.redact` is the last step before the renderer for every event, and aiohttp's access log
is off.
"""

import io
import logging
import sys
from typing import Final, TextIO, cast

import structlog

from auth.redact import redact_event

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Stderr(io.TextIOBase):
    """Writes to the current `sys.stderr`, which a progress bar replaces so that lines appear above it."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(*, log_format: str, level: str) -> None:
    """Configure structlog, and send events of the standard library's loggers (aiohttp, nats) to the same output."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    stderr = cast("TextIO", _Stderr())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    end: list[structlog.typing.Processor] = [redact_event]
    if console:
        # Plain tracebacks: rich's tracebacks show local variables, which may be keys and tokens.
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
