"""Mask secrets in text and in log events. The last step before a log line is written, for every log call.

Owns the patterns of secrets: API keys, admin credentials, JWTs, credentials in URLs and bearer headers. Takes time
linear in the length of the text, since clients control much of what is logged.
"""

import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

MASK: Final = "***"

# Every alternative fails within a bounded distance of its start, so hostile text cannot make matching quadratic.
_SECRETS: Final = re.compile(
    r"""
      ( [sp]k_(?: live | test )_ | admin_(?= [0-9a-f]{8} ) ) \w+
    | ( eyJ ) [\w-]{8,} (?: \.[\w-]* )*                          # a JWT starts with base64url of '{"'
    | ( (?i: api_key | token ) = ) [^&\s"'<>\#;,)]+
    | ( (?i: token_secrets ) ["']? [ ]? [=:] ) [^&\s<>]+
    | ( PRIVATE[ ]KEY-----) [A-Za-z0-9+/=\s\\]+                # PEM, also where line ends are escaped: RFC 7468
    | ( (?i: bearer ) [ ]{1,4} ) [\w.~+/=-]{16,}                # RFC 6750 section 2.1; shorter words are prose
    """,
    re.VERBOSE | re.ASCII,
)
# Most text has none of these, and searching for them is much cheaper than running the pattern.
_MARKS: Final = ("_live_", "_test_", "admin_", "eyJ", "=", "earer", "EARER", "PRIVATE KEY", "_secrets", "_SECRETS")
_DEEPEST: Final = 32


def redact(text: str) -> str:
    """Return `text` with every secret masked; the kind of each secret stays readable."""
    for mark in _MARKS:
        if mark in text:
            return _SECRETS.sub(_masked, text)
    return text


def redact_event(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets in a log event, at any depth. A structlog processor; must be the last one before the renderer."""
    plain = _UNMARKED if _has_no_mark(event_dict) else _PLAIN
    for name, value in event_dict.items():
        if name == "exc_info" or type(value) in plain:
            continue
        # Assigning to an existing name keeps the size, so the iteration stays valid.
        event_dict[name] = redact(value) if type(value) is str else _redact_value(value, 0)
    if event_dict.get("exc_info"):
        _redact_exception(event_dict)
    return event_dict


_PLAIN: Final = frozenset({int, float, bool, type(None)})
_UNMARKED: Final = _PLAIN | {str}
"""Types of values that hold no secret where no text of the event has a mark of one."""


def _has_no_mark(event_dict: Mapping[str, Any]) -> bool:
    """Whether no text of an event can hold a secret: together they are searched in a third of the time."""
    text = "\n".join([value for value in event_dict.values() if type(value) is str])
    for mark in _MARKS:  # noqa: SIM110 - a generator takes longer than the search
        if mark in text:
            return False
    return True


def _masked(match: re.Match[str]) -> str:
    return f"{match[match.lastindex or 0]}{MASK}"


def _redact_value(value: object, depth: int) -> object:
    """Return a masked copy of a container; return any other value unchanged unless it has a secret."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        masked = redact(value)
        return value if masked == value else masked
    if depth == _DEEPEST:
        return "(nested too deeply to log)"
    if isinstance(value, Mapping):
        return {_redact_value(key, depth + 1): _redact_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(item, depth + 1) for item in value]
    # Renderers use repr() for other values, such as URLs and exceptions.
    text = repr(value)
    masked = redact(text)
    return value if masked == text else masked


def _redact_exception(event_dict: MutableMapping[str, Any]) -> None:
    """Replace an exception whose traceback has a secret by masked text; the renderer formats other exceptions."""
    error = event_dict["exc_info"]
    if isinstance(error, tuple):
        error = error[1]
    elif not isinstance(error, BaseException):
        error = sys.exception()
    if error is None:
        return
    text = "".join(traceback.format_exception(error)).rstrip()
    masked = redact(text)
    if masked != text:
        del event_dict["exc_info"]
        event_dict["exception"] = masked
