"""Values of the command line, forms of subjects, and the limit of wrong credentials."""

import pytest
from typer.testing import CliRunner

from auth.redact import redact
from relay.admin.admin_credentials import PREFIX, is_admin_secret
from relay.admin.admin_errors import InvalidChange
from relay.admin.api.attempts import ALLOWED, PERIOD_S, Attempts
from relay.admin.key_document import id_of_name
from relay.commands.keys.key_values import duration_s, expiry, limits
from relay.commands.root import app
from roundlog.records.record_stream import subject_token


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("45s", 45), ("30m", 1800), ("24h", 86_400), ("1.5d", 129_600), ("2w", 1_209_600)]
)
def test_duration(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert duration_s("--overlap", text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1h", "1y", "1 h", "1h30m", "inf", "1e3s", "9" * 30 + "d", "٣d"])
def test_bad_duration(text: str) -> None:
    """The option and the value are named."""
    with pytest.raises(InvalidChange, match=r"--overlap .* is not a duration, such as 90d"):
        duration_s("--overlap", text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("never", None),
        ("1d", "2027-01-16T08:00:00Z"),
        ("2027-02-01", "2027-02-01T00:00:00Z"),
        ("2027-02-01T10:00:00+02:00", "2027-02-01T08:00:00Z"),
    ],
)
def test_expiry(text: str, time: str | None) -> None:
    """A duration from now, a day in UTC, or a time."""
    assert expiry("--expires", text, now=1_800_000_000) == time


@pytest.mark.parametrize("text", ["", "soon", "32d1", "2027-13-01", "0x1"])
def test_bad_expiry(text: str) -> None:
    """All forms are named."""
    with pytest.raises(InvalidChange, match=r"--expires .* is none of: never, a duration"):
        expiry("--expires", text, now=0)


def test_limits() -> None:
    """Numbers by name; default takes one back."""
    assert limits(["links=5", "links_per_s=0.5", "replays=default"]) == {
        "links": 5,
        "links_per_s": 0.5,
        "replays": None,
    }


@pytest.mark.parametrize("text", ["links", "link=5", "links=many", "=5", ""])
def test_bad_limit(text: str) -> None:
    """Names are listed, or the value is shown."""
    with pytest.raises(InvalidChange, match="--limit"):
        limits([text])


def test_id_of_a_name() -> None:
    """What a person writes becomes an id."""
    assert [id_of_name(name) for name in ("Partner A", "  Ünï & co. ", "***")] == ["partner-a", "n-co", ""]


def test_subject_tokens_are_different_and_harmless() -> None:
    """No id reaches another subject."""
    texts = ["a", "a.b", "a*", ">", "a b", "a=2e=b", "ä", ""]
    tokens = [subject_token(text) for text in texts]

    assert len(set(tokens)) == len(texts)
    assert not any(set(token) & set(".*> \r\n") for token in tokens)


def test_admin_secret_is_masked_wherever_it_is_logged() -> None:
    """Also when it is incomplete; words that begin alike are not."""
    secret = PREFIX + "0123456789abcdef" * 4

    assert is_admin_secret(secret)
    assert not is_admin_secret("sk_live_" + "0" * 64)
    assert redact(f"x {secret} y") == "x admin_*** y"
    assert redact(f"path/{secret[:30]}") == "path/admin_***"
    assert redact("admin_listening admin_host=1 RELAY_ADMIN_PORT admin_admin") == (
        "admin_listening admin_host=1 RELAY_ADMIN_PORT admin_admin"
    )


def test_wrong_credentials_are_counted_by_address_and_period() -> None:
    """However many addresses there are, memory is bounded."""
    now = 0.0
    wrong = Attempts(lambda: now)

    counts = [wrong.add("a")[0] for _ in range(ALLOWED + 1)]
    assert counts == list(range(1, ALLOWED + 2))
    assert wrong.add("b")[0] == 1
    now = PERIOD_S
    assert wrong.add("a") == (1, PERIOD_S)
    for number in range(5000):
        wrong.add(f"c{number}")
    assert len(wrong._counts) == 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("key", "create", "a", "--expires", "soon"), "--expires 'soon' is none of: never, a duration"),
        (
            ("key", "create", "a", "--limit", "speed=1"),
            "--limit 'speed=1' is not NAME=NUMBER; names are",
        ),
        (("key", "rotate", "a", "--overlap", "1y"), "--overlap '1y' is not a duration"),
        (("key", "set", "a"), "give at least one of the options that --help lists"),
        (("key", "usage", "--since", "x"), "--since 'x' is not a duration"),
        (("key", "revoke"), "give either --token or --subject"),
        (("key", "revoke", "--token", "a", "--subject", "b"), "give either --token or --subject"),
        (("key", "revoke", "--token", "a", "--for", "x"), "--for 'x' is not a duration"),
        (("admin", "create", "--expires", "x"), "--expires 'x' is none of"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_is_asked(arguments: tuple[str, ...], sentence: str) -> None:
    """No connection is made for them."""
    outcome = CliRunner().invoke(app, arguments)

    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    [line] = outcome.stderr.splitlines()
    assert sentence in line
