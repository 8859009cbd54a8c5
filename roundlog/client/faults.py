"""What the exceptions of nats-py and the operating system mean: the one place that translates them to `LogError`.

Knows nothing of the requests that raise them; a caller names its own in ``context``.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from roundlog.client.library_errors import means_lost
from roundlog.log_errors import LogError, LogRefused, LogUnavailable, NoResponders

NATS_ERRORS: Final = (NatsError, OSError, TimeoutError)
"""What nats-py raises when a server does not answer, or refuses. What else may mean so: `means_lost`."""

_CONNECTED: Final[tuple[tuple[type[BaseException], type[LogUnavailable]], ...]] = (
    (NoRespondersError, NoResponders),
    (BaseException, LogUnavailable),
)
"""What an exception means on a connection that has been made; the first match counts."""


def log_error(context: str, error: BaseException) -> LogUnavailable:
    """Translate an exception of a request into ``<context>: <reason>``."""
    kind = next(ours for theirs, ours in _CONNECTED if isinstance(error, theirs))
    return kind(f"{context}: {sentence(error)}")


def connect_error(shown_url: str, error: BaseException) -> LogError:
    """Translate an exception of an attempt to connect."""
    reason = sentence(error)
    # nats-py has no type of its own for most of the server's refusals.
    if isinstance(error, ssl.SSLError) or "authorization" in reason.lower():
        return LogRefused(f"NATS at {shown_url} refused the connection: {reason}")
    return LogUnavailable(f"NATS at {shown_url} cannot be reached: {reason}")


@contextmanager
def translated(context: str) -> Iterator[None]:
    """Raise `LogUnavailable` (or `NoResponders`) for each of `NATS_ERRORS` in the block, and for what `means_lost`."""
    try:
        yield
    except NATS_ERRORS as error:
        raise log_error(context, error) from error
    except BaseException as error:
        if not means_lost(error):
            raise
        raise log_error(context, error) from error


def sentence(error: BaseException) -> str:
    """Return the text of an exception, or its type's name when it has none."""
    return str(error).removeprefix("nats: ").strip() or type(error).__name__
