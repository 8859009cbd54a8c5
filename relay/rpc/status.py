"""Errors and disconnects as gRPC statuses: a code, a message, and trailing metadata with what to do next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from auth.redact import redact
from relay.errors import CursorLost, RelayError, TooManyRequests, Unavailable, refusal_of
from relay.live.bounds import Bounds, GapReason
from relay.live.link import CloseReason, Disconnect
from relay.rpc.status_code import StatusCode
from rounds import Cursor

Metadata = tuple[tuple[str, str], ...]

_BY_HTTP_STATUS: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}

_RETRY_MS: Final = "1000"
"""The delay of an error that has none of its own; the same as ``Retry-After: 1`` over HTTP."""


class Status(NamedTuple):
    """What a call ends with."""

    code: StatusCode
    message: str
    trailers: Metadata = ()
    reason: str = ""  # the `code` of the error body, or a `CloseReason`


class StatusError(RelayError):
    """Ends a call with a status for which there is no error in other protocols."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return self.status.message


OK: Final = Status(StatusCode.OK, "")
INTERNAL: Final = Status(StatusCode.INTERNAL, "internal error; it has been logged", (), "internal")
REVOKED: Final = Status(
    StatusCode.PERMISSION_DENIED,
    "revoked: the key was taken back, or no longer covers what this call follows; do not call again",
    (),
    CloseReason.REVOKED,
)
DEADLINE: Final = Status(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed", (), "deadline_exceeded")


def status_of(error: Exception) -> Status | None:
    """Return the status of a call that raised `error`; None when the error is a bug of ours."""
    if isinstance(error, StatusError):
        return error.status
    refusal = refusal_of(error)
    if refusal is None:
        return None
    message = redact(str(error))  # it quotes what was sent, which may be a key in the wrong place
    if isinstance(error, CursorLost):
        return Status(StatusCode.OUT_OF_RANGE, message, (("first-cursor", str(error.first)),), refusal.code)
    code = _BY_HTTP_STATUS.get(refusal.status, StatusCode.UNKNOWN)
    if isinstance(error, Unavailable):
        if error.reason == "capacity":
            code = StatusCode.RESOURCE_EXHAUSTED
        return Status(code, message, (("retry-after-ms", str(error.retry_ms)),), refusal.code)
    if isinstance(error, TooManyRequests):
        return Status(code, message, (("retry-after-ms", str(error.retry_ms)),), refusal.code)
    trailers = (("retry-after-ms", _RETRY_MS),) if code is StatusCode.UNAVAILABLE else ()
    return Status(code, message, trailers, refusal.code)


def status_of_disconnect(disconnect: Disconnect) -> Status:
    """Return the status of a stream that we ended; all rounds up to its cursor were sent."""
    reason = disconnect.reason
    if reason is CloseReason.COMPLETED:
        return Status(StatusCode.OK, "", (), reason)
    if reason is CloseReason.REVOKED:
        return REVOKED
    resume = () if disconnect.cursor is None else (("resume-cursor", disconnect.cursor),)
    if reason is CloseReason.DEADLINE:
        return DEADLINE._replace(trailers=resume, reason=reason)
    trailers = (*_retry(disconnect), *resume)
    if reason is CloseReason.FAILED:
        return INTERNAL._replace(trailers=trailers, reason=reason)
    message = f"{reason}: call again after retry-after-ms" + (", with resume-cursor" if resume else "")
    return Status(StatusCode.UNAVAILABLE, message, trailers, reason)


def status_of_gap(gap: Mapping[str, object], bounds: Bounds, disconnect: Disconnect) -> Status:
    """Return the status of a stream that was ended because of a gap, from the gap event of the other protocols."""
    resume, first = Cursor.parse(str(gap["to"])), bounds.at(bounds.first)
    if gap["reason"] == GapReason.AHEAD:
        # The log lost its tail: new rounds get sequences after the start of the gap.
        resume = Cursor.parse(str(gap["from"]))
    else:
        first = replace(resume, sequence=resume.sequence + 1)
    message = (
        f"rounds after {gap['from']} up to {gap['to']} are gone ({gap['reason']}); "
        "start after resume-cursor to continue without them, or set allow_gap"
    )
    trailers = (("first-cursor", str(first)), *_retry(disconnect), ("resume-cursor", str(resume)))
    return Status(StatusCode.OUT_OF_RANGE, message, trailers, CloseReason.GAP)


def _retry(disconnect: Disconnect) -> Metadata:
    return (("retry-after-ms", str(disconnect.retry_ms)),)


def metadata_of(hello: Mapping[str, object]) -> Metadata:
    """Render a hello event as initial metadata: for clients that sent a cursor or a time; empty for an empty event.

    No name is that of a trailer: Connect clients join the values of both, and two cursors with a comma are none.
    """
    if not hello:
        return ()
    complete = "true" if hello["complete"] else "false"
    return (("complete", complete), ("oldest-cursor", str(hello["first"])), ("head-cursor", str(hello["head"])))
