"""What is decided about a client of event streams from its request."""

import pytest
from multidict import CIMultiDict

from relay.errors import BadRequest
from relay.http.sse.sse_client import End, PlaceForm, client_of

CHROMIUM = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/148.0.0.0 Safari/537.36",
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
}
NODE_FETCH = {
    "User-Agent": "node",
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "Sec-Fetch-Mode": "cors",
}
R3LABS = {"User-Agent": "Go-http-client/1.1", "Accept": "text/event-stream", "Cache-Control": "no-cache"}


@pytest.mark.parametrize(
    ("headers", "place"),
    [
        (CHROMIUM, PlaceForm.BLOCK),
        ({**CHROMIUM, "Cache-Control": ""}, PlaceForm.LINE),  # fetch-event-source in a page
        ({**CHROMIUM, "Accept": "*/*"}, PlaceForm.LINE),
        (NODE_FETCH, PlaceForm.EVENT),
        ({**NODE_FETCH, "Accept": "*/*"}, PlaceForm.LINE),
        (R3LABS, PlaceForm.LINE),
        ({"User-Agent": "python-httpx/0.28.1", "Accept": "text/event-stream"}, PlaceForm.LINE),
        ({}, PlaceForm.LINE),
    ],
)
def test_form_of_the_place(headers: dict[str, str], place: PlaceForm) -> None:
    """A blank line only for clients that make no event of it, and events only for those that need and take them."""
    assert client_of(CIMultiDict(headers), {}, end="auto").place is place


@pytest.mark.parametrize("headers", [CHROMIUM, NODE_FETCH, R3LABS, {}])
def test_client_can_ask_for_events_or_refuse_them(headers: dict[str, str]) -> None:
    """Its wish overrides what is known of it."""
    asked = client_of(CIMultiDict(headers), {"hello": "1"}, end="auto")
    refused = client_of(CIMultiDict(headers), {"hello": "0"}, end="auto")

    assert (asked.place, asked.events) == (PlaceForm.EVENT, True)
    assert (refused.place is PlaceForm.EVENT, refused.events) == (False, False)


def test_go_client_gets_events_only_when_its_user_knows_of_them() -> None:
    """Its library sends `Last-Event-ID` by itself, and given programs take every event for a round."""
    headers = CIMultiDict(R3LABS | {"Last-Event-ID": "k3f9a2-1"})

    assert client_of(headers, {}, end="auto").events is False
    assert client_of(headers, {"after": "k3f9a2-1"}, end="auto").events is None


@pytest.mark.parametrize(
    ("user_agent", "configured", "asked", "clean"),
    [
        ("Go-http-client/1.1", "auto", None, False),
        ("Go-http-client/2.0", "auto", None, False),
        ("Mozilla/5.0", "auto", None, True),
        ("", "auto", None, True),
        ("Go-http-client/1.1", "clean", None, True),
        ("Mozilla/5.0", "unclean", None, False),
        ("Go-http-client/1.1", "unclean", "clean", True),
        ("Mozilla/5.0", "clean", "unclean", False),
        ("Go-http-client/1.1", "clean", "auto", False),
    ],
)
def test_end_that_suits_the_client(user_agent: str, configured: End, asked: str | None, clean: bool) -> None:
    """By its library, by the operator, or by itself."""
    query = {} if asked is None else {"end": asked}

    assert client_of(CIMultiDict({"User-Agent": user_agent}), query, end=configured).clean_end is clean


@pytest.mark.parametrize(
    "query", [{"end": "rst"}, {"hello": "2"}, {"heartbeat": "0"}, {"heartbeat": "61"}, {"heartbeat": "1.5"}]
)
def test_invalid_parameter_is_refused_with_its_name(query: dict[str, str]) -> None:
    """The sentence has the parameter and its value."""
    [(name, value)] = query.items()
    with pytest.raises(BadRequest, match=f"^{name} '{value}' is"):
        client_of(CIMultiDict(), query, end="auto")
