"""What is known of a client of event streams: how it takes its place in the log, and after which end it returns. Pure.

Owns the decisions of docs/adr/0019-place-and-end-of-event-streams.md. They depend on headers that libraries send, and
the client can override them in its query. Does not know links or bytes.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Literal, NamedTuple

from relay.errors import BadRequest
from relay.history.start import asks_hello, parse_int

PARAMETERS: Final = ("end", "heartbeat")
End = Literal["auto", "clean", "unclean"]
ENDS: Final = ("auto", "clean", "unclean")

MAX_HEARTBEAT_S: Final = 60
_GO: Final = "Go-http-client/"
_BROWSER: Final = "Mozilla/"
_NODE: Final = "node"
_BEGINNINGS: Final = {"after", "from", "to"}
"""Parameters of clients that know of events."""


class PlaceForm(Enum):
    """How a client is sent a cursor outside rounds."""

    LINE = auto()  # an `id` line without a blank line: no parser makes an event of it, and some keep the id
    BLOCK = auto()  # an `id` line and a blank line: what the HTML standard asks for; some parsers make an event of it
    EVENT = auto()  # a named event with data: for clients that asked for events, and keep the ids of events only


class SseClient(NamedTuple):
    """How to write to one client."""

    place: PlaceForm
    clean_end: bool  # the last chunk is sent; else the body stays incomplete, which is an error to the client
    heartbeat_s: float | None  # the interval that it asked for
    events: bool | None  # whether it gets events; None: if it sends a cursor or a time


def client_of(headers: Mapping[str, str], query: Mapping[str, str], *, end: End) -> SseClient:
    """Decide how to write to the client that sent a request.

    Args:
        headers: Of the request; names in any case.
        query: Its parameters: ``hello``, and those of `PARAMETERS`.
        end: The configured end of streams; the parameter ``end`` overrides it.

    Raises:
        BadRequest: A parameter has an invalid value.
    """
    events = _events(headers, query)
    place = PlaceForm.BLOCK if _is_event_source_of_browser(headers) else PlaceForm.LINE
    return SseClient(
        place=PlaceForm.EVENT if events else place,
        clean_end=_ends_clean(headers, query.get("end", end)),
        heartbeat_s=float(parse_int(query, "heartbeat", at_least=1, at_most=MAX_HEARTBEAT_S))
        if "heartbeat" in query
        else None,
        events=events,
    )


def _events(headers: Mapping[str, str], query: Mapping[str, str]) -> bool | None:
    asked = asks_hello(query)
    if asked is None and _is_event_source_of_node(headers):
        return True
    if asked is None and _is_go(headers) and not query.keys() & _BEGINNINGS:
        # The library sent the id of the last round by itself. Given programs take every event with data for a round.
        return False
    return asked


def _ends_clean(headers: Mapping[str, str], end: str) -> bool:
    if end not in ENDS:
        raise BadRequest(f"end {end[:40]!r} is none of {', '.join(ENDS)}")
    if end == "auto":
        # r3labs/sse ends for good when the body is complete. The other libraries of Go return after both ends.
        return not _is_go(headers)
    return end == "clean"


def _is_go(headers: Mapping[str, str]) -> bool:
    return headers.get("User-Agent", "").startswith(_GO)


def _is_event_source_of_browser(headers: Mapping[str, str]) -> bool:
    """Whether the request has what browsers send for an ``EventSource``.

    Libraries in a page use fetch, which sends no ``Cache-Control`` by default. Some make an event of each blank line.
    """
    return headers.get("User-Agent", "").startswith(_BROWSER) and _asks_for_event_stream(headers)


def _is_event_source_of_node(headers: Mapping[str, str]) -> bool:
    """Whether the request has what npm ``eventsource`` 3 and 4 send: fetch of Node, uncached, for an event stream."""
    return headers.get("User-Agent", "") == _NODE and _asks_for_event_stream(headers) and "Sec-Fetch-Mode" in headers


def _asks_for_event_stream(headers: Mapping[str, str]) -> bool:
    uncached = "no-cache" in headers.get("Cache-Control", "")
    return uncached and headers.get("Accept", "") == "text/event-stream"
