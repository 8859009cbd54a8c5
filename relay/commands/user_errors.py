"""Which errors end a command with a sentence instead of a traceback."""

from auth.keys import InvalidKeys
from backends.contract import BackendError
from relay.commands.client.follow import Refused
from relay.errors import StartError
from roundlog.errors import LogError

_TELLABLE = (StartError, LogError, BackendError, InvalidKeys, Refused)


def sentences(error: BaseException) -> list[str] | None:
    """Return what to tell, one sentence per failure; None when some of it is a bug of ours."""
    if isinstance(error, _TELLABLE):
        return [str(error)]
    if isinstance(error, BaseExceptionGroup):
        told = [sentences(inner) for inner in error.exceptions]
        if all(lines is not None for lines in told):
            return list(dict.fromkeys(line for lines in told if lines for line in lines))
    return None
