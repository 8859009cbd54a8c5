"""The last step of logging masks every secret, at any depth of an event and for every log call."""

import hashlib
import io
import json
import logging
from typing import Any

import jwt
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from auth.redact import redact, redact_event

# Constant, since the names of parametrised tests contain them.
SECRET = f"sk_live_{hashlib.sha256(b'private').hexdigest()}"
PUBLIC = f"pk_live_{hashlib.sha256(b'public').hexdigest()}"
TOKEN = jwt.encode({"sub": "partner", "jti": "b8Qm2xkP5w"}, "k" * 32, headers={"kid": "k1"})
BARE = (SECRET[8:], PUBLIC[8:], *TOKEN.split("."))

PRIVATE = "PRIVATE KEY"
"""Not in the texts themselves, so that a search for secrets finds none here."""


def shows_secret(value: object) -> bool:
    return any(bare in str(value) for bare in BARE)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"key {SECRET} refused", "key sk_live_*** refused"),
        (f"'{PUBLIC}'", "'pk_live_***'"),
        (SECRET[:20], "sk_live_***"),
        (SECRET.replace("live", "test"), "sk_test_***"),
        (f"key={PUBLIC.replace('live', 'test')};", "key=pk_test_***;"),
        (f"admin_{SECRET[8:]}", "admin_***"),
        (f"{SECRET}{SECRET}", "sk_live_***"),
        (f"GET /sse/crash?api_key={SECRET}&games=a", "GET /sse/crash?api_key=***&games=a"),
        ("/sse?api_key=mistyped&after=k3f9a2-1042", "/sse?api_key=***&after=k3f9a2-1042"),
        ("/sse?API_KEY=x#there", "/sse?API_KEY=***#there"),
        (f"/ws?token={TOKEN} HTTP/1.1", "/ws?token=*** HTTP/1.1"),
        (f"Sec-WebSocket-Protocol: {TOKEN}, datastream.v1", "Sec-WebSocket-Protocol: eyJ***, datastream.v1"),
        (f"protocols ['{TOKEN}']", "protocols ['eyJ***']"),
        (TOKEN[:60], "eyJ***"),
        ("Authorization: Bearer opaque-token-of-an-idp-1", "Authorization: Bearer ***"),
        (f"access_token={TOKEN}", "access_token=***"),
    ],
)
def test_secret_in_text_is_masked_and_its_kind_stays_readable(text: str, masked: str) -> None:
    """Keys, tokens and credentials in URLs and headers, complete or truncated."""
    assert redact(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "link_closed",
        "a bearer token is missing",
        "the token has expired; it is valid for 30 seconds",
        "games=crash,dice&after=k3f9a2-1042",
        "eyJ",
        "admin_port, admin_closed",
        '{"point": "2.50"}',
        "x=1",
        "tokens=",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """Text without secrets is not changed: logs must stay readable."""
    assert redact(text) == text


@given(st.text(), st.text(), st.sampled_from([SECRET, PUBLIC, TOKEN]))
def test_secret_between_any_text_is_masked(before: str, after: str, secret: str) -> None:
    """No text around a secret prevents its masking."""
    assert not shows_secret(redact(before + secret + after))


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    """Masked text has nothing to mask."""
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "hostile",
    [
        *("sk_live_" * 500_000, "eyJ" * 1_000_000, "eyJ" + "." * 4_000_000, "token=" * 700_000),
        *("PRIVATE KEY-----" * 250_000, "PRIVATE KEY-----" + "A" * 4_000_000, "token_secrets=" * 300_000),
        *("bearer" + " " * 4_000_000, "bearer " * 600_000, "eyJaaaaaaaa." * 300_000, "eyJaaaa=" * 500_000),
    ],
)
def test_megabytes_of_hostile_text_are_masked_in_time(hostile: str) -> None:
    """Clients control what is logged. A pattern with more than linear cost would exceed the test's time limit."""
    assert len(redact(hostile)) <= len(hostile)


# --- events --------------------------------------------------------------------------------------------------------

strings = st.sampled_from([SECRET, PUBLIC, TOKEN, f"/sse?api_key={SECRET}"]) | st.text(max_size=8)
values = st.recursive(
    strings | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(strings, inner, max_size=4)
        | st.frozensets(strings, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["event", "error", "headers", "path"]), values))
def test_secret_at_any_depth_of_an_event_is_masked(event: dict[str, Any]) -> None:
    """Secrets are masked in lists, tuples, sets and mappings, as values and as keys."""
    assert not shows_secret(redact_event(None, "info", event))


@given(
    st.recursive(st.integers() | st.text("abc"), lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner))
)
def test_event_without_secrets_is_the_same_event(value: object) -> None:
    """Values and their types do not change."""
    assert redact_event(None, "info", {"event": "x", "value": value, "age_s": 1.5}) == {
        "event": "x",
        "value": value,
        "age_s": 1.5,
    }


def test_value_of_another_type_is_masked_as_it_would_be_rendered() -> None:
    """Renderers print the repr of a URL, an exception or bytes."""
    event = redact_event(
        None,
        "info",
        {
            "url": URL(f"http://relay/sse?api_key={SECRET}"),
            "error": ValueError(f"no such key {SECRET}"),
            "raw": SECRET.encode(),
            "harmless": URL("http://relay/"),
        },
    )

    assert not shows_secret(event)
    assert event["harmless"] == URL("http://relay/")


def test_value_that_contains_itself_ends() -> None:
    """Logging must not hang or fail for any value."""
    endless: list[object] = [SECRET]
    endless.append(endless)

    assert not shows_secret(redact_event(None, "info", {"event": "x", "value": endless}))


@pytest.mark.parametrize("how", ["true", "error", "tuple"])
def test_traceback_that_names_a_secret_is_masked(how: str) -> None:
    """The traceback stays, for each way of giving the exception."""
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError as error:
        exc_info = {"true": True, "error": error, "tuple": (ValueError, error, error.__traceback__)}[how]
        event = redact_event(None, "error", {"event": "failed", "exc_info": exc_info})

    assert not shows_secret(event)
    assert "ValueError: bad key sk_live_***" in event["exception"]
    assert "exc_info" not in event


def test_traceback_without_secrets_is_formatted_by_the_renderer() -> None:
    """The console renderer prints exceptions in its own format."""
    error = ValueError("harmless")

    assert redact_event(None, "error", {"event": "failed", "exc_info": error}) == {"event": "failed", "exc_info": error}
    assert redact_event(None, "error", {"event": "failed", "exc_info": True}) == {"event": "failed", "exc_info": True}


def test_json_log_lines_of_structlog_and_of_the_standard_library_show_no_secret() -> None:
    """With the relay's setup: the step is the last before the renderer, for foreign loggers too."""
    out = io.StringIO()
    processors: list[Any] = [structlog.processors.format_exc_info, redact_event, structlog.processors.JSONRenderer()]
    ours = structlog.wrap_logger(structlog.PrintLogger(out), processors=processors)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors]
        )
    )
    theirs = logging.getLogger("aiohttp.of_this_test")
    theirs.propagate = False
    theirs.addHandler(handler)

    ours.info("handshake_refused", protocols=[TOKEN], nested={"headers": [("X-API-Key", SECRET)]})
    theirs.warning("Client protocols %r don't overlap, url %s", [TOKEN], f"/sse?api_key={SECRET}")

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert not shows_secret(lines)
    assert json.loads(lines[0])["protocols"] == ["eyJ***"]


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN {PRIVATE}-----\nMC4CAQAwBQYDK2VwBCIE\n-----END {PRIVATE}-----",
        f"-----BEGIN EC {PRIVATE}-----\\nMC4CAQAwBQYDK2VwBCIE\\n-----END EC {PRIVATE}-----",
        "RELAY_AUTH_TOKEN_SECRETS=k1:MC4CAQAwBQYDK2VwBCIE,k2:MC4CAQAwBQYDK2VwBCIE is wrong",
        "{'token_secrets':'k1:MC4CAQAwBQYDK2VwBCIE'}",
    ],
)
def test_signing_keys_are_masked(text: str) -> None:
    """Private keys in PEM, and the setting with all secrets of tokens."""
    masked = redact(text)

    assert "MC4CAQ" not in masked
    assert "***" in masked
