"""Secrets that people type, count or copy are refused; what a random generator prints is not."""

import base64
import random
import re
import string
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from auth.key import InvalidKeys
from auth.signing.secret_strength import ENOUGH_BITS, strength_bits
from auth.signing.signing_keys import read_secrets

ROOT = Path(__file__).parents[3]
RANDOM = random.Random(12)


def letters(alphabet: str, length: int) -> str:
    return "".join(RANDOM.choice(alphabet) for _ in range(length))


GENERATORS: dict[str, Callable[[], str]] = {
    "openssl rand -hex 32": lambda: RANDOM.randbytes(32).hex(),
    "openssl rand -hex 16": lambda: RANDOM.randbytes(16).hex(),
    "openssl rand -hex 64": lambda: RANDOM.randbytes(64).hex(),
    "openssl rand -base64 32": lambda: base64.b64encode(RANDOM.randbytes(32)).decode(),
    "openssl rand -base64 24": lambda: base64.b64encode(RANDOM.randbytes(24)).decode(),
    "secrets.token_urlsafe": lambda: base64.urlsafe_b64encode(RANDOM.randbytes(32)).rstrip(b"=").decode(),
    "a uuid4": lambda: str(uuid.UUID(bytes=RANDOM.randbytes(16), version=4)),
    "two uuid4": lambda: f"{uuid.UUID(bytes=RANDOM.randbytes(16), version=4)}{uuid.UUID(bytes=RANDOM.randbytes(16))}",
    "pwgen -s 43": lambda: letters(string.ascii_letters + string.digits, 43),
    "printable": lambda: letters(string.ascii_letters + string.digits + "!#$%&()*+./;<=>?@[]^_{|}~", 32),
    "lower case": lambda: letters(string.ascii_lowercase, 32),
    "random bytes": lambda: RANDOM.randbytes(32).decode("latin-1"),
}

WEAK = {
    "one letter": "a" * 64,
    "zeros": "0" * 64,
    "two letters": "ab" * 32,
    "one letter but the last": "a" * 31 + "b",
    "groups": "aaaaaaaabbbbbbbbccccccccdddddddd",
    "a word": "password" * 5,
    "a word, capitalized": "Password" * 5,
    "an order": "changeme" * 4,
    "what it is": "secretsecretsecretsecretsecretsecret",
    "digits": "12345678901234567890123456789012",
    "hex digits": "0123456789abcdef" * 4,
    "the alphabet": "abcdefghijklmnopqrstuvwxyz0123456789",
    "the alphabet, back": "zyxwvutsrqponmlkjihgfedcba9876543210",
    "keys in a row": "qwertyuiopasdfghjklzxcvbnm123456",
    "keys in columns": "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9",
    "of many examples": "your-256-bit-secret-your-256-bit-secret",
    "a sentence of such": "my-super-secret-token-signing-key-2026",
    "a famous password, again": "Tr0ub4dor&3-Tr0ub4dor&3-Tr0ub4dor&3",
    "a random half, twice": "f0e1d2c3b4a59687" * 4,
    "a word in hex": b"passwordpasswordpasswordpassword".hex(),
    "a word in base64": base64.b64encode(b"passwordpasswordpasswordpassword").decode(),
    "words in base64url": base64.urlsafe_b64encode(b"this-is-the-secret-signing-key??>").decode(),
    "counted bytes in hex": bytes(range(32)).hex(),
    "counted bytes in base64": base64.b64encode(bytes(range(32))).decode(),
    "hex words": "deadbeefcafebabe" * 2,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_what_a_generator_prints_is_accepted(name: str) -> None:
    """Also the least lucky of a hundred: a relay must not refuse to start by chance."""
    made = [GENERATORS[name]() for _ in range(100)]

    assert min(strength_bits(secret.encode()) for secret in made) >= ENOUGH_BITS


@pytest.mark.parametrize("name", WEAK)
def test_weak_secret_is_refused_without_being_shown(name: str) -> None:
    """Each is long enough. The sentence says what is wrong and how to make a good one."""
    secret = WEAK[name]
    assert len(secret) >= 32
    with pytest.raises(InvalidKeys) as caught:
        list(read_secrets(f"k1:{secret}"))

    sentence = str(caught.value)
    assert "entry 1 is easy to guess" in sentence
    assert "openssl rand -hex 32" in sentence
    assert secret[:12] not in sentence


def test_examples_of_our_own_pages_are_refused() -> None:
    """A copied example is a secret that everybody can read."""
    pages = (ROOT / "docs/auth.md", ROOT / "README.md")
    examples = {text for page in pages for text in re.findall(r"\b[0-9a-f]{64}\b", page.read_text("utf-8"))}
    assert len(examples) >= 2

    for example in examples:
        assert strength_bits(example.encode()) < ENOUGH_BITS, example


def test_command_makes_accepted_secrets() -> None:
    """As docs/auth.md says."""
    command = Path(sys.executable).with_name("stream-relay")
    made = subprocess.run([command, "key", "secret"], capture_output=True, text=True, check=True).stdout

    [(name, key)] = read_secrets(made.strip())
    assert name.startswith("k")
    assert key.algorithm == "HS256"


def test_huge_secret_is_estimated_in_bounded_time() -> None:
    """Only its start is looked at."""
    assert strength_bits(RANDOM.randbytes(1 << 20).hex().encode()) >= ENOUGH_BITS
    assert strength_bits(b"ab" * (1 << 20)) < ENOUGH_BITS
