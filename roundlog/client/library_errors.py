"""Recognise the exceptions of a library whose connection is closed, although their types do not say so.

uvloop raises `RuntimeError` for a closed transport where asyncio warns. nats-py and asyncpg then use attributes that
are None, complete futures twice, or cancel what the caller awaits. Only exceptions from inside a library count: one
that our own code raises is a defect. Types that wrong arguments cause (TypeError, ValueError, LookupError) never count.
"""

import asyncio
from typing import Final

_OURS: Final = ("auth", "backends", "relay", "roundlog", "rounds", "stream_relay")
_KINDS: Final = (
    RuntimeError,  # uvloop: the handler is closed; asyncio: the loop or the transport is
    AttributeError,  # a transport or protocol that is None
    AssertionError,  # "assert self._transport" and the like
    asyncio.InvalidStateError,  # an answer to a request that was given up
    EOFError,  # includes IncompleteReadError
    BufferError,
)


def means_lost(error: BaseException) -> bool:
    """Say whether `error` means that a library has lost its connection.

    True for an exception of one of `_KINDS` that was raised inside a library, and for a cancellation that nobody
    requested of this task: the library has cancelled what the task awaits. Errors of documented types, such as OSError,
    are up to the caller.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, _KINDS) and _is_raised_in_library(error)


def _is_raised_in_library(error: BaseException) -> bool:
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    room = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    return room not in _OURS
