"""The errors that end a command with a sentence instead of a traceback."""

from auth.key import InvalidKeys
from backends.contract import BackendError
from relay.commands.client.target import Refused
from relay.errors import RelayError
from roundlog.log_errors import LogError

_USER_ERRORS = (RelayError, LogError, BackendError, InvalidKeys, Refused)


def sentences(error: BaseException) -> list[str] | None:
    """Return one sentence per error, also for a group; None when any of the errors is a bug."""
    if isinstance(error, _USER_ERRORS):
        return [str(error)]
    if isinstance(error, BaseExceptionGroup):
        found = [sentences(inner) for inner in error.exceptions]
        if all(lines is not None for lines in found):
            return list(dict.fromkeys(line for lines in found if lines for line in lines))
    return None


def exit_status(error: BaseException) -> int:
    """Return the exit status of a command that ended with one of these errors: 1, unless the error has another."""
    return int(getattr(error, "exit_status", 1))
