"""Keys are read from two forms, stored as hashes, and found; every mistake of an operator has its own sentence."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.key import InvalidCredential, InvalidKeys, Key, StoredSecret
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, generate, hash_of, stored

SECRET = "sk_live_" + "ab" * 32
PUBLIC = "pk_live_" + "cd" * 32
HASH = hash_of(SECRET)
PUBLIC_HASH = hash_of(PUBLIC)

slugs = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
origins = st.from_regex(r"\Ahttps?://[a-z0-9]{1,20}\.example(:8[0-9]{3})?\Z") | st.just("*")
keys = st.builds(
    Key,
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
    st.just("private"),
    st.none() | st.frozensets(slugs, min_size=1, max_size=5),
) | st.builds(
    Key,
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
    st.just("public"),
    st.none() | st.frozensets(slugs, min_size=1, max_size=5),
    st.frozensets(origins, min_size=1, max_size=4),
)


def of_hash(text: str) -> StoredSecret:
    return StoredSecret(bytes.fromhex(text.removeprefix("sha256:")))


def as_line(key: Key, hash_: str) -> str:
    words = [f"{key.id}={hash_}", f"kind={key.kind}"]
    if key.games is not None:
        words.append(f"games={','.join(key.games)}")
    if key.allowed_origins:
        words.append(f"allowed_origins={','.join(key.allowed_origins)}")
    return " ".join(words)


def as_toml(key: Key, hash_: str) -> str:
    lines = [f'[keys."{key.id}"]', f'hash = "{hash_}"', f'kind = "{key.kind}"']
    if key.games is not None:
        lines.append(f"games = {sorted(key.games)}")
    if key.allowed_origins:
        lines.append(f"allowed_origins = {sorted(key.allowed_origins)}")
    return "\n".join(lines) + "\n"


def refusal(*, text: str = "", file_text: str = "") -> str | None:
    """Return the error sentence; None when the keys are valid."""
    try:
        KeyRing(read_keys(text=text, file_text=file_text))
    except InvalidKeys as error:
        return str(error)
    return None


@given(st.lists(keys, max_size=5, unique_by=lambda key: key.id))
def test_keys_read_from_either_form_are_the_ones_written(written: list[Key]) -> None:
    """The line and the file give equal keys, and each secret finds exactly its own key."""
    made = [(key, *generate(key.kind)) for key in written]
    by_line = KeyRing(read_keys(text="; ".join(as_line(key, hash_) for key, _, hash_ in made)))
    by_file = KeyRing(read_keys(file_text="".join(as_toml(key, hash_) for key, _, hash_ in made)))

    assert len(by_line) == len(by_file) == len(written)
    for key, secret, hash_ in made:
        assert by_line.authenticate(secret) == by_file.authenticate(secret) == replace(key, secrets=(of_hash(hash_),))


@given(st.text(), st.text())
def test_any_text_is_keys_or_refused_in_one_sentence(text: str, file_text: str) -> None:
    """No text raises an error other than `InvalidKeys`."""
    assert refusal(text=text, file_text=file_text) != ""


@given(st.lists(st.sampled_from([";", "=", " ", ",", "a", "kind", "games", HASH, SECRET, "public", "*", "hash"])))
def test_words_of_the_line_in_any_order_never_echo_a_secret(words: list[str]) -> None:
    """No sentence repeats a secret, at any position in the line."""
    assert SECRET[8:] not in (refusal(text="".join(words)) or "")


def test_line_and_file_together_add_up() -> None:
    """Keys of both are loaded; blank entries and white space are ignored."""
    store = KeyRing(
        read_keys(
            text=f" ; partner={HASH}\n;",
            file_text=f'[keys.web]\nhash = "{PUBLIC_HASH}"\nkind = "public"\nallowed_origins = ["*"]',
        )
    )

    assert store.authenticate(SECRET) == Key("partner", "private", secrets=(of_hash(HASH),))
    assert store.authenticate(PUBLIC) == Key("web", "public", None, frozenset({"*"}), (of_hash(PUBLIC_HASH),))


def test_nothing_configured_is_a_store_without_keys() -> None:
    """It accepts no secret, and its length is 0."""
    store = KeyRing(read_keys())

    assert len(store) == 0
    with pytest.raises(InvalidCredential):
        store.authenticate(SECRET)


def test_hash_in_capitals_is_the_same_hash() -> None:
    """Some systems print SHA-256 in capitals."""
    store = KeyRing(read_keys(text=f"partner=sha256:{HASH[7:].upper()}"))

    assert store.authenticate(SECRET).id == "partner"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (f"partner={SECRET}", r"key 'partner': hash is a plain secret.*sha256sum"),
        (SECRET, r"entry 1 has a word without '='"),
        (f"a={HASH};{SECRET}", r"entry 2 has a word without '='"),
        (f"{SECRET}={HASH}", r"key id 'sk_live_\*\*\*' is not allowed"),
        (f"a={HASH[:-1]}", r"key 'a': hash is malformed; it must be 'sha256:' and 64 hex digits"),
        ("a=", r"hash is malformed"),
        (f"a={HASH} kind=secret", r"Invalid enum value 'secret'.*private or public"),
        (f"a={HASH} limit=5", r"unknown field `limit`.*allowed are hash, kind"),
        (f"a={HASH} hash={HASH}", r"key 'a' has hash twice"),
        (f"a={HASH} games=crash games=dice", r"key 'a' has games twice"),
        (f"a={HASH} games=crash,>", r"games holds '>'; a game is"),
        (f"a={HASH} games=", r"games holds ''"),
        (f"a={HASH} games={'x' * 5000}", r"games holds 'x{60}\.\.\.'"),
        (f"a={HASH} allowed_origins=https://a.example", r"allowed_origins is for public keys"),
        (f"a={PUBLIC_HASH} kind=public", r"a public key needs allowed_origins"),
        (f"é={HASH}", r"key id 'é' is not allowed"),
        (f"={HASH}", r"key id '' is not allowed"),
        (f"a={HASH};a={PUBLIC_HASH}", r"key 'a' is defined twice"),
        (f"a={HASH};b={HASH}", r"keys 'a' and 'b' have the same hash"),
        (f"a={hash_of(DEMO_KEY)}", r"the demo's key, which everybody knows"),
        (f"a={hash_of(DEMO_PUBLIC_KEY)} kind=public allowed_origins=*", r"the demo's key"),
    ],
)
def test_mistake_in_the_line_has_its_sentence(entry: str, says: str) -> None:
    """The sentence has the entry, the field and what is allowed, and never a secret."""
    with pytest.raises(InvalidKeys) as caught:
        KeyRing(read_keys(text=entry))

    assert re.search(says, str(caught.value)), str(caught.value)
    assert SECRET[8:] not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("file_text", "says"),
    [
        ("[keys.a", r"keys file is not TOML"),
        ("[key.a]\nhash='x'", r"unknown field `key`.*\[keys\.ID\]"),
        ("keys = 3", r"Expected `object`, got `int`"),
        ("[keys]\na = 'x'", r"Expected `object`, got `str`"),
        ("[keys.a]", r"key 'a': hash is missing; it is 'sha256:'"),
        (f"[keys.a]\nhash='{HASH}'\ngames=[]", r"games is empty"),
        (f"[keys.a]\nhash='{HASH}'\ngames='crash'", r"Expected `array \| null`, got `str`"),
        (f"[keys.a]\nhash='{SECRET}'", r"hash is a plain secret"),
        (f"[keys.{SECRET}]\nhash='{HASH}'\n[keys.{SECRET}]", r"sk_live_\*\*\*"),
    ],
)
def test_mistake_in_the_file_has_its_sentence(file_text: str, says: str) -> None:
    """A broken file gives one sentence, without its secrets."""
    with pytest.raises(InvalidKeys) as caught:
        KeyRing(read_keys(file_text=file_text))

    assert re.search(says, str(caught.value)), str(caught.value)
    assert SECRET[8:] not in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example/",
        "https://App.example",
        "app.example",
        "https://app.example/path",
        "https://user@app.example",
        "https://*.example",
        "https://app.example:0",
        "https://app.example:443",
        "http://app.example:80",
        "https://exämple.com",
        "null",
        "https://",
        "file:///",
        "**",
    ],
)
def test_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    """An origin that can never match would refuse all browsers without an error at start."""
    with pytest.raises(InvalidKeys, match=r"allowed_origins holds"):
        KeyRing(read_keys(text=f"web={PUBLIC_HASH} kind=public allowed_origins={origin}"))


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example",
        "http://localhost:3000",
        "http://[::1]:8080",
        "capacitor://localhost",
        "app://.",
        "app://",
        "file://",
        "*",
    ],
)
def test_origin_as_browsers_send_it_is_accepted(origin: str) -> None:
    """Scheme, host and a port that is not the default; web views of apps use other schemes."""
    store = KeyRing(read_keys(text=f"web={PUBLIC_HASH} kind=public allowed_origins={origin}"))

    assert store.authenticate(PUBLIC).allowed_origins == {origin}


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "sk_live_",
        SECRET[:-1],
        SECRET + "a",
        SECRET + "\n",
        " " + SECRET,
        SECRET.upper(),
        SECRET.replace("sk_", "pk_"),
        "sk_live_" + "ef" * 32,
        "sk_live_" + "é" * 64,
        "sk_live_" + "٣" * 64,
        "\udcff" * 72,
        "a" * 1_000_000,
        HASH,
        HASH[7:],
        DEMO_KEY,
    ],
)
def test_unknown_secret_is_refused_without_being_echoed(secret: str) -> None:
    """The stored hash and the demo's key are refused too."""
    store = KeyRing(read_keys(text=f"partner={HASH}"))

    with pytest.raises(InvalidCredential) as caught:
        store.authenticate(secret)
    assert len(str(caught.value)) < 120
    assert len(secret) < 10 or secret not in str(caught.value)


def test_token_in_place_of_a_key_has_a_sentence_of_its_own() -> None:
    """A user who sends one has mixed up the two, and "malformed" would not help."""
    with pytest.raises(InvalidCredential, match="this is a token, and an API key is needed here"):
        KeyRing.demo().authenticate("eyJhbGciOiJIUzI1NiJ9.e30.c2ln")


@given(st.text())
def test_any_text_is_a_key_or_refused(secret: str) -> None:
    """No text raises an error other than `InvalidCredential`."""
    with pytest.raises(InvalidCredential):
        KeyRing.demo().authenticate(secret)


def test_public_key_listed_as_private_gets_nothing() -> None:
    """A secret that every browser has must not get a server's rights by a mistake of the operator."""
    store = KeyRing(read_keys(text=f"web={PUBLIC_HASH} kind=private; partner={HASH} kind=public allowed_origins=*"))

    for secret in (PUBLIC, SECRET):
        with pytest.raises(InvalidCredential):
            store.authenticate(secret)


def test_demo_keys_open_the_demo_only() -> None:
    """The demo's keys are all zeros and allow every game; no other store accepts them."""
    demo = KeyRing.demo()

    assert DEMO_KEY == "sk_live_" + "0" * 64
    assert demo.authenticate(DEMO_KEY) == Key("demo", "private", secrets=(stored(DEMO_KEY),))
    assert demo.authenticate(DEMO_PUBLIC_KEY).kind == "public"
    with pytest.raises(InvalidCredential):
        KeyRing(read_keys(text=f"partner={HASH}")).authenticate(DEMO_KEY)


def test_generated_keys_have_their_form_and_are_never_the_same() -> None:
    """64 hex digits after the prefix of the kind, and a hash that the store accepts."""
    private, hash_ = generate("private")
    public, _ = generate("public")

    assert re.fullmatch(r"sk_live_[0-9a-f]{64}", private)
    assert re.fullmatch(r"pk_live_[0-9a-f]{64}", public)
    assert hash_ == hash_of(private)
    assert generate("private")[0] != private


def test_nothing_about_a_store_shows_secrets_or_hashes() -> None:
    """repr and str of a store and its keys can be logged."""
    store = KeyRing(read_keys(text=f"partner={HASH}"))

    for shown in (repr(store), str(store), repr(store.authenticate(SECRET))):
        assert SECRET[8:] not in shown
        assert HASH[7:] not in shown
