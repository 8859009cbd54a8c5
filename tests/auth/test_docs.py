"""The examples and commands of docs/auth.md work as written."""

import re
import subprocess
from dataclasses import fields, replace
from pathlib import Path

from auth.key import InvalidKeys, Key, Limits
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import generate, hash_of
from auth.stores.stored_json import key_of_json

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "auth.md").read_text("utf-8")
MEMBERS = (DOCS / "keys.md").read_text("utf-8")


def block(language: str, holding: str) -> str:
    """Return the fenced block of a language that has a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(text for text in blocks if holding in text)


def with_hash(form: str, place: int, hash_: str) -> str:
    """Replace one of the example hashes by the hash of a known key."""
    return form.replace(re.findall(r"sha256:[0-9a-f]{64}", form)[place], hash_)


def test_file_and_line_of_the_page_hold_the_same_two_keys() -> None:
    """Each example, unchanged, gives a private key for all games and a public key for two."""
    private, private_hash = generate("private")
    public, public_hash = generate("public")

    for argument, form in (("file_text", block("toml", "[keys.")), ("text", block("text", "partner="))):
        ours = with_hash(with_hash(form, 1, public_hash), 0, private_hash)
        store = KeyRing(read_keys(**{argument: ours}))
        assert len(store) == 2
        assert replace(store.authenticate(private), secrets=()) == Key("partner", "private")
        assert replace(store.authenticate(public), secrets=()) == Key(
            "web",
            "public",
            frozenset({"crash", "dice"}),
            frozenset({"https://app.example.com", "http://localhost:3000"}),
        )


def test_examples_of_members_are_keys() -> None:
    """The file, the line and the row of the page are read as they are; its table has every member and limit."""
    [file] = re.findall(r"```toml\n(.*?)```", MEMBERS, re.DOTALL)
    [line] = re.findall(r"```text\n(.*?)```", MEMBERS, re.DOTALL)
    [row] = re.findall(r"'(\{\"format\".*?\})'", MEMBERS)

    partner, web = read_keys(file_text=file)
    assert (partner.name, partner.limits.requests_per_min, web.types) == ("Partner A", 5000, frozenset({"color"}))
    assert [key.name for key in read_keys(text=line)] == ["Partner A", ""]
    assert key_of_json("table", "partner", row).kind == "private"
    table = MEMBERS.partition("| member |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert {field.name for field in (*fields(Key), *fields(Limits)) if field.name != "id"} <= named


def test_hash_command_of_the_page_prints_a_hash_that_the_store_accepts() -> None:
    """A shell and sha256sum are enough to hash a key."""
    secret, hash_ = generate("private")
    command = block("sh", "sha256sum")

    printed = subprocess.run(
        ["sh", "-c", command],
        env={"API_KEY": secret, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert printed.stdout.strip() == hash_ == hash_of(secret)


def test_command_in_the_refusal_of_a_plain_secret_prints_its_hash() -> None:
    """The command in the error sentence works as written."""
    secret, hash_ = generate("private")
    try:
        KeyRing(read_keys(text=f"partner={secret}"))
    except InvalidKeys as error:
        sentence = str(error)
    command = sentence.split("`")[1].replace("SECRET", secret)

    printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)

    assert f"sha256:{printed.stdout.split()[0]}" == hash_
