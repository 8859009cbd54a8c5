"""Configure structured logs: past-tense events with fields, as JSON lines or as readable lines on a terminal.

Secrets are never logged: `auth.redact` is the last step before the renderer for every event, and aiohttp's access log
is off. Nor can a client forge a line: JSON escapes control characters, and so does the readable form.
"""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, TextIO, cast

import structlog

from auth.redact import redact_event
from relay.config.log_limits import LineLimit
from relay.config.log_output import install, plain_notice

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_CAUSED_BY_CLIENTS: Final = (
    ("asyncio", "socket.send() raised exception"),
    ("grpc", "ExecuteBatchError raised in core by servicer method"),
)
"""Loggers of libraries, and how their lines begin, for clients that left while they were written to."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Processors = Sequence[structlog.typing.Processor]


class _Stderr(io.TextIOBase):
    """Writes to the current `sys.stderr`, which a progress bar replaces so that lines appear above it."""

    def write(self, text: str, /) -> int:
        return len(text) if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


class _Serializer:
    """Does as `json.dumps`, which makes an encoder for each line, and its parts again for each line."""

    def __init__(self) -> None:
        self._encode: Callable[[Any], str] | None = None

    def __call__(self, event: Any, **options: Any) -> str:
        if self._encode is None:
            self._encode = _encoder(json.JSONEncoder(**options))
        return self._encode(event)


def _encoder(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Return what `encoder` does, without the check for circles: `redact_event` bounds the depth."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without it
        return encoder.encode
    escape, item, key = json.encoder.encode_basestring_ascii, encoder.item_separator, encoder.key_separator
    parts = make(None, encoder.default, escape, None, key, item, encoder.sort_keys, encoder.skipkeys, encoder.allow_nan)
    return lambda event: "".join(parts(event, 0))


class _FewLines(logging.Filter):
    """Passes few lines of one kind of a library, and none below the level that report clients that left."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level
        self._limit = LineLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        for name, beginning in _CAUSED_BY_CLIENTS:
            if record.name.startswith(name) and kind.startswith(beginning):
                record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
        if record.levelno < self._level:
            return False
        left_out = self._limit.allow((record.name, record.levelno, kind.partition("\n")[0][:100]))
        if left_out:
            record.left_out = left_out
        return left_out is not None


def configure(*, log_format: str, level: str) -> None:
    """Configure structlog, and send events of the standard library's loggers (aiohttp, nats) to the same output."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr is not None and sys.stderr.isatty())
    stderr = cast("TextIO", _Stderr())
    shared, end = _processors(console=console)
    structlog.configure(
        processors=[*shared, *end],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stderr),  # one write a line
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.addFilter(_FewLines(_LEVELS[level]))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.ExtraAdder(allow={"left_out"}),
                _add_library,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(True)


def write_without_blocking() -> None:
    """Let a thread write what is printed on stderr, so that its reader cannot stop this process. After `configure`."""
    writer = install()
    if writer is not None and structlog.is_configured():
        writer.notice = _dropped


def _processors(*, console: bool) -> tuple[Processors, Processors]:
    """Return the steps that make an event, and those that make a line of it."""
    shared: Processors = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if not console:
        render = structlog.processors.JSONRenderer(_Serializer())
        return shared, [structlog.processors.format_exc_info, redact_event, render]
    # Plain tracebacks: rich's tracebacks show local variables, which may be keys and tokens.
    plain, colors = structlog.dev.plain_traceback, sys.stderr is not None and sys.stderr.isatty()
    return shared, [redact_event, _escape, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _dropped(count: int) -> str:
    """Render the event about dropped lines, as every other event."""
    event: Any = {"event": "log_lines_dropped", "lines": count}
    for process in structlog.get_config()["processors"]:
        event = process(None, "warning", event)
    return str(event) if event else plain_notice(count)


def _add_library(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the library that a line is from."""
    record = event_dict.get("_record")
    if isinstance(record, logging.LogRecord):
        event_dict["logger"] = record.name
    return event_dict


def _escape(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could begin a line, or change how a terminal shows it, except in tracebacks."""
    for name, value in event_dict.items():
        if name not in ("exc_info", "exception", "stack") and isinstance(value, str):
            event_dict[name] = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], value)
    return event_dict
