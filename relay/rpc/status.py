"""How errors and ends of streams look in gRPC: a status, its sentence, and trailers that say what to do next."""

from typing import Final, NamedTuple

from grpc import StatusCode

from relay.errors import CursorLost, Unavailable, refusal_of
from relay.link import CloseReason
from relay.rpc.link import GrpcLink

Metadata = tuple[tuple[str, str], ...]

_BY_HTTP_STATUS: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}
_BY_REASON: Final = {
    CloseReason.COMPLETED: StatusCode.OK,
    CloseReason.GAP: StatusCode.OUT_OF_RANGE,
    CloseReason.FAILED: StatusCode.INTERNAL,
}


class Ending(NamedTuple):
    """What a call ends with."""

    code: StatusCode
    sentence: str
    trailers: Metadata


def ending_of(error: Exception) -> Ending | None:
    """Say how to refuse a call; None when `error` is a bug of ours."""
    refusal = refusal_of(error)
    if refusal is None:
        return None
    if isinstance(error, CursorLost):
        return Ending(StatusCode.OUT_OF_RANGE, str(error), (("first-cursor", str(error.first)),))
    if isinstance(error, Unavailable):
        full = error.reason == "capacity"
        code = StatusCode.RESOURCE_EXHAUSTED if full else StatusCode.UNAVAILABLE
        return Ending(code, str(error), (("retry-after-ms", str(error.retry_ms)),))
    return Ending(_BY_HTTP_STATUS.get(refusal.status, StatusCode.UNKNOWN), str(error), ())


def ending_of_link(link: GrpcLink) -> Ending:
    """Say how a stream ends that was ended by us."""
    goodbye = link.ended
    if goodbye is None:
        return Ending(StatusCode.CANCELLED, "the stream was cut", ())
    code = _BY_REASON.get(goodbye.reason, StatusCode.UNAVAILABLE)
    if goodbye.reason is CloseReason.GAP and link.lost is not None:
        sentence = f"rounds after {link.lost['from']} up to {link.lost['to']} are gone ({link.lost['reason']})"
        return Ending(
            code,
            f"{sentence}; start after first-cursor, or ask with allow_gap",
            (("first-cursor", goodbye.cursor or ""),),
        )
    if code is not StatusCode.UNAVAILABLE:
        return Ending(code, str(goodbye.reason), ())
    trailers = (("retry-after-ms", str(goodbye.retry_ms)), ("resume-cursor", goodbye.cursor or ""))
    return Ending(code, f"{goodbye.reason}: call again after retry-after-ms with resume-cursor", trailers)
