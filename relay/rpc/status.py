"""How errors and ends of streams look in gRPC: a status, its sentence, and trailers that say what to do next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from grpc import StatusCode

from relay.errors import CursorLost, Unavailable, refusal_of
from relay.live.bounds import Bounds, GapReason
from relay.live.link import CloseReason, Disconnect
from rounds import Cursor

Metadata = tuple[tuple[str, str], ...]

_BY_HTTP_STATUS: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}


_RETRY_MS: Final = "1000"
"""As ``Retry-After: 1`` over HTTP, where nothing better is known."""


class Ending(NamedTuple):
    """What a call ends with."""

    code: StatusCode
    sentence: str
    trailers: Metadata = ()
    word: str = ""  # the stable word of the error body


def ending_of(error: Exception) -> Ending | None:
    """Say how to refuse a call; None when `error` is a bug of ours."""
    refusal = refusal_of(error)
    if refusal is None:
        return None
    if isinstance(error, CursorLost):
        return Ending(StatusCode.OUT_OF_RANGE, str(error), (("first-cursor", str(error.first)),), refusal.code)
    code = _BY_HTTP_STATUS.get(refusal.status, StatusCode.UNKNOWN)
    if isinstance(error, Unavailable):
        if error.reason == "capacity":
            code = StatusCode.RESOURCE_EXHAUSTED
        return Ending(code, str(error), (("retry-after-ms", str(error.retry_ms)),), refusal.code)
    trailers = (("retry-after-ms", _RETRY_MS),) if code is StatusCode.UNAVAILABLE else ()
    return Ending(code, str(error), trailers, refusal.code)


def ending_of_goodbye(goodbye: Disconnect) -> Ending:
    """Say how a stream ends that was ended by us, with the rounds whole up to its cursor."""
    reason = goodbye.reason
    if reason is CloseReason.COMPLETED:
        return Ending(StatusCode.OK, "", (), reason)
    place = () if goodbye.cursor is None else (("resume-cursor", goodbye.cursor),)
    if reason is CloseReason.DEADLINE:
        return Ending(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed", place, reason)
    if reason is CloseReason.FAILED:
        return Ending(StatusCode.INTERNAL, "internal error; it has been logged", place, reason)
    sentence = f"{reason}: call again after retry-after-ms" + (", with resume-cursor" if place else "")
    return Ending(StatusCode.UNAVAILABLE, sentence, (("retry-after-ms", str(goodbye.retry_ms)), *place), reason)


def ending_of_gap(gap: Mapping[str, object], bounds: Bounds) -> Ending:
    """Say how a stream ends that lost rounds, from the event that other protocols are told and what the log holds."""
    resume, first = Cursor.parse(str(gap["to"])), bounds.at(bounds.first)
    if gap["reason"] == GapReason.AHEAD:
        resume = Cursor.parse(str(gap["from"]))  # the log lost its tail: new rounds follow the gap's beginning
    else:
        first = replace(resume, sequence=resume.sequence + 1)
    sentence = (
        f"rounds after {gap['from']} up to {gap['to']} are gone ({gap['reason']}); "
        "start after resume-cursor to go on without them, or ask with allow_gap"
    )
    trailers = (("first-cursor", str(first)), ("resume-cursor", str(resume)))
    return Ending(StatusCode.OUT_OF_RANGE, sentence, trailers, CloseReason.GAP)


def metadata_of(hello: Mapping[str, object]) -> Metadata:
    """Render what a client that sent a cursor or a time is told before the first round."""
    if not hello:
        return ()
    complete = "true" if hello["complete"] else "false"
    return (("complete", complete), ("first-cursor", str(hello["first"])), ("head-cursor", str(hello["head"])))
