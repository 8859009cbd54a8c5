"""A credential is found in every place that the contract allows, and two different ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict

from auth.credentials import (
    AmbiguousCredential,
    NotAllowedOrigin,
    Presented,
    authorize,
    find_key,
    find_sse_credential,
    find_ws_credential,
    required,
)
from auth.grants import Grant
from auth.key import InvalidCredential, Key
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, hash_of
from auth.tokens import InvalidToken, TokenSigner

KEY = "sk_live_" + "ab" * 32
OTHER = "sk_live_" + "cd" * 32
PUBLIC = "pk_live_" + "ef" * 32
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
PAGE = "https://app.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": KEY},
        {"X-Api-Key": f"  {KEY} "},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Basic dXNlcjpwYXNz"},
        {"X-API-Key": "", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_key_in_a_header_is_found(headers: dict[str, str]) -> None:
    """The key may be in either header, in any case, or in both; another authorization scheme is ignored."""
    assert find_key(headers, {}, allow_query=False) == Presented("key", KEY)
    assert find_key(CIMultiDict(headers), MultiDict(), allow_query=True) == Presented("key", KEY)
    assert find_sse_credential(headers, {}) == Presented("key", KEY)
    assert find_ws_credential(headers, {}) == Presented("key", KEY, None)


def test_key_in_the_url_is_found_only_where_it_is_allowed() -> None:
    """SSE accepts ``?api_key=``; the token endpoint and WebSocket do not, since URLs are often logged."""
    query = {"api_key": KEY}

    assert find_key({}, query, allow_query=True) == Presented("key", KEY)
    assert find_key({}, query, allow_query=False) is None
    assert find_sse_credential({}, query) == Presented("key", KEY)
    assert find_ws_credential({}, query) is None


def test_token_in_the_url_is_found_on_streams_only() -> None:
    """SSE and WebSocket accept ``?token=``; the token endpoint does not exchange a token for a token."""
    query = {"token": TOKEN}

    assert find_sse_credential({}, query) == Presented("token", TOKEN)
    assert find_ws_credential({}, query) == Presented("token", TOKEN, None)
    assert find_key({}, query, allow_query=True) is None


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}])
def test_request_without_a_credential_has_none(headers: dict[str, str]) -> None:
    """A blank credential is the same as none."""
    assert find_key(headers, {"api_key": ""}, allow_query=True) is None
    assert find_sse_credential(headers, {"token": " "}) is None
    assert find_ws_credential(headers | {"Sec-WebSocket-Protocol": "datastream.v1, ,"}, {}) is None


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("X-API-Key", KEY), ("Authorization", f"Bearer {OTHER}")], []),
        ([("X-API-Key", KEY), ("X-API-Key", OTHER)], []),
        ([("X-API-Key", KEY)], [("api_key", OTHER)]),
        ([("X-API-Key", KEY)], [("token", TOKEN)]),
        ([], [("api_key", KEY), ("api_key", OTHER)]),
        ([], [("token", TOKEN), ("token", TOKEN + "x")]),
    ],
)
def test_two_different_credentials_are_refused(headers: list[tuple[str, str]], query: list[tuple[str, str]]) -> None:
    """In two places or twice in one: neither is chosen, and neither is echoed."""
    with pytest.raises(AmbiguousCredential) as caught:
        find_sse_credential(CIMultiDict(headers), MultiDict(query))

    assert not any(value in str(caught.value) for _, value in headers + query)


# --- WebSocket -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (TOKEN, TOKEN),
        (f"{TOKEN}, datastream.v1", "datastream.v1"),
        (f"datastream.v1,{TOKEN}", "datastream.v1"),
        (f"json, {TOKEN}", TOKEN),
        (f"{TOKEN},{TOKEN}", TOKEN),
    ],
)
def test_token_among_the_subprotocols_is_found_and_one_is_selected(offered: str, selected: str) -> None:
    """The server selects the token, or datastream.v1 when it is offered; otherwise browsers close the connection."""
    presented = find_ws_credential({"Sec-WebSocket-Protocol": offered}, {})

    assert presented == Presented("token", TOKEN, selected)


def test_subprotocols_on_several_header_lines_count_as_one_list() -> None:
    """RFC 6455 section 11.3.4 allows the header to be repeated."""
    headers = CIMultiDict([("Sec-WebSocket-Protocol", "datastream.v1"), ("Sec-WebSocket-Protocol", TOKEN)])

    assert find_ws_credential(headers, {}) == Presented("token", TOKEN, "datastream.v1")


@pytest.mark.parametrize("offered", ["rubbish", KEY, "rubbish, datastream.v1"])
def test_broken_token_is_presented_so_that_it_is_refused_as_one(offered: str) -> None:
    """A single offered value is taken as a token; "credential is missing" would mislead the user."""
    presented = find_ws_credential({"Sec-WebSocket-Protocol": offered}, {})

    assert presented is not None
    assert presented.kind == "token"
    with pytest.raises(InvalidToken):
        authorize(presented, KeyRing.demo(), TokenSigner.ephemeral(), origin=None)


def test_key_in_a_header_beside_foreign_subprotocols_selects_none_of_them() -> None:
    """The name of another subprotocol is not a token, and the relay does not support it."""
    headers = {"X-API-Key": KEY, "Sec-WebSocket-Protocol": "json"}

    assert find_ws_credential(headers, {}) == Presented("key", KEY, None)
    assert find_ws_credential(headers | {"Sec-WebSocket-Protocol": "json,datastream.v1"}, {}) == Presented(
        "key", KEY, "datastream.v1"
    )


@pytest.mark.parametrize("query", [{}, {"token": TOKEN + "x"}])
def test_token_beside_another_credential_is_refused(query: dict[str, str]) -> None:
    """With two tokens, or a token and a key, either could be meant."""
    headers = {"Sec-WebSocket-Protocol": f"{TOKEN},{TOKEN}y"} if not query else {"Sec-WebSocket-Protocol": TOKEN}

    with pytest.raises(AmbiguousCredential):
        find_ws_credential(headers, query)
    with pytest.raises(AmbiguousCredential):
        find_ws_credential({"X-API-Key": KEY, "Sec-WebSocket-Protocol": TOKEN}, {})


@given(st.dictionaries(st.sampled_from(["X-API-Key", "Authorization", "Sec-WebSocket-Protocol", "Host"]), st.text()))
def test_any_headers_give_a_credential_or_none_or_ambiguous(headers: dict[str, str]) -> None:
    """No headers raise another error, and a selected subprotocol was offered."""
    try:
        presented = find_ws_credential(headers, {})
    except AmbiguousCredential:
        return
    if presented is not None and presented.subprotocol is not None:
        assert presented.subprotocol in headers["Sec-WebSocket-Protocol"]


# --- authorize -----------------------------------------------------------------------------------------------------


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing(
        read_keys(text=f"partner={hash_of(KEY)} games=crash; web={hash_of(PUBLIC)} kind=public allowed_origins={PAGE}")
    )


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner.ephemeral()


def test_private_key_is_granted_its_games_from_anywhere(keys: KeyRing, signer: TokenSigner) -> None:
    """Origins restrict browsers, and private keys are not for browsers."""
    for origin in (None, "https://anywhere.example"):
        grant = authorize(Presented("key", KEY), keys, signer, origin=origin)
        assert grant == Grant("partner", "private", frozenset({"crash"}), frozenset())


def test_token_is_granted_what_its_key_is(keys: KeyRing, signer: TokenSigner) -> None:
    """The grants of a token and of its key are equal."""
    for secret, origin in ((KEY, None), (PUBLIC, PAGE)):
        token, _ = signer.issue(keys.authenticate(secret))
        by_token = authorize(Presented("token", token), keys, signer, origin=origin)
        assert by_token == authorize(Presented("key", secret), keys, signer, origin=origin)


@pytest.mark.parametrize("kind", ["key", "token"])
@pytest.mark.parametrize(
    "origin",
    [
        *(None, "", "null", "*", f"{PAGE}:8443", f"{PAGE}/", PAGE.upper(), "http://app.example"),
        *("https://app.example.evil.example", "https://evil.example/https://app.example", "x" * 10_000),
    ],
)
def test_public_key_from_elsewhere_is_refused(
    keys: KeyRing, signer: TokenSigner, kind: str, origin: str | None
) -> None:
    """Scheme, host and port must equal those of an allowed origin; a token has the origins of its key."""
    secret = PUBLIC if kind == "key" else signer.issue(keys.authenticate(PUBLIC))[0]
    presented = Presented("key" if kind == "key" else "token", secret)

    with pytest.raises(NotAllowedOrigin) as caught:
        authorize(presented, keys, signer, origin=origin)
    assert len(str(caught.value)) < 250


def test_star_allows_any_origin_and_none(signer: TokenSigner) -> None:
    """With ``*``, a public key works from everywhere, as the demo's does."""
    for origin in (None, "null", "https://anywhere.example"):
        assert authorize(Presented("key", DEMO_PUBLIC_KEY), KeyRing.demo(), signer, origin=origin).kind == "public"


@pytest.mark.parametrize(("origin", "allowed"), [("null", True), ("file://", True), ("https://a.example", False)])
def test_pages_from_files(signer: TokenSigner, origin: str, allowed: bool) -> None:
    """Electron and Cordova send `null` or `file://` for them; the key names both as `file://`."""
    key = Key("web", "public", allowed_origins=frozenset({"file://"}))
    token, _ = signer.issue(key)

    if allowed:
        assert authorize(Presented("token", token), KeyRing([key]), signer, origin=origin).key_id == "web"
    else:
        with pytest.raises(NotAllowedOrigin):
            authorize(Presented("token", token), KeyRing([key]), signer, origin=origin)


def test_null_is_not_any_other_origin(signer: TokenSigner) -> None:
    """A sandboxed frame of any site sends `null`: a key for a site does not allow it."""
    key = Key("web", "public", allowed_origins=frozenset({"https://a.example", "app://."}))
    token, _ = signer.issue(key)

    with pytest.raises(NotAllowedOrigin):
        authorize(Presented("token", token), KeyRing([key]), signer, origin="null")


def test_origin_of_a_public_key_without_any_is_refused(signer: TokenSigner) -> None:
    """A token of a public key without origins, which no store issues, is not accepted."""
    key = Key("web", "public")
    token, _ = signer.issue(key)

    with pytest.raises(NotAllowedOrigin):
        authorize(Presented("token", token), KeyRing([key]), signer, origin=None)


def test_nothing_presented_is_refused_with_what_to_send(keys: KeyRing, signer: TokenSigner) -> None:
    """The sentence asks for a key, where a token may not be accepted."""
    with pytest.raises(InvalidCredential, match=r"missing; send an API key in X-API-Key$"):
        authorize(None, keys, signer, origin=None)


@pytest.mark.parametrize(
    ("query", "tokens", "sentence"),
    [
        ({}, True, "a credential is missing; send an API key in X-API-Key, or a stream token"),
        ({}, False, "a credential is missing; send an API key in X-API-Key"),
        ({"api_key": KEY}, False, "a key in the URL is accepted on /sse only; send an API key in X-API-Key"),
        ({"api_key": " "}, False, "a credential is missing; send an API key in X-API-Key"),
    ],
)
def test_sentence_names_only_what_the_endpoint_accepts(query: dict[str, str], tokens: bool, sentence: str) -> None:
    """It offers a token only where one is accepted, and says when a key in the URL is misplaced."""
    with pytest.raises(InvalidCredential) as raised:
        required(None, query, tokens=tokens)

    assert str(raised.value) == sentence


def test_what_was_presented_is_what_is_required() -> None:
    """`required` does not check the credential."""
    presented = Presented("key", "x")

    assert required(presented, {"api_key": "y"}, tokens=False) is presented


@pytest.mark.parametrize("kind", ["key", "token"])
def test_wrong_credential_is_refused_by_its_own_rules(keys: KeyRing, signer: TokenSigner, kind: str) -> None:
    """A key is not a token, a token is not a key, and the demo's key is unknown here."""
    with pytest.raises(InvalidCredential):
        authorize(Presented("key", signer.issue(keys.authenticate(KEY))[0]), keys, signer, origin=None)
    with pytest.raises(InvalidToken):
        authorize(Presented("token", KEY), keys, signer, origin=None)
    with pytest.raises(InvalidCredential):
        authorize(Presented("key", DEMO_KEY), keys, signer, origin=None)


def test_presented_credential_shows_no_secret() -> None:
    """repr shows neither the secret nor the subprotocol, which may be the token."""
    assert repr(Presented("token", TOKEN, TOKEN)) == "Presented(kind='token')"
