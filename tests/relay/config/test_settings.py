"""Settings: where they come from, who wins, and the one sentence that a wrong one gets."""

from pathlib import Path

import pytest

from relay.config.settings import InvalidSettings, load, masked, variables


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the developer has set in the shell stays out."""
    for name in [*variables(), "PORT"]:
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str) -> str:
    path = folder / "relay.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_defaults_need_nothing() -> None:
    """A relay starts with keys and secrets and nothing else."""
    settings = load()

    assert settings.http.port == 8080
    assert settings.links.heartbeat_s < 15, "clients are promised a sign of life every 15 s"
    assert settings.drain.margin_s < settings.drain.grace_s <= 10, "Cloud Run gives 10 s"


def test_command_line_wins_over_environment_over_file_over_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this order, one at a time taken away."""
    monkeypatch.setenv("PORT", "1001")
    assert load().http.port == 1001
    monkeypatch.setenv("RELAY_CONFIG", write(tmp_path, "[http]\nport = 1002\n[links]\nretry_ms = 7\n"))
    assert load().http.port == 1002
    monkeypatch.setenv("RELAY_HTTP_PORT", "1003")
    assert load().http.port == 1003
    assert load({"http": {"port": 1004}}).http.port == 1004
    assert load({"http": {"host": "127.0.0.1"}}).http.port == 1003, "sections are merged, not replaced"
    assert load().links.retry_ms == 7


def test_every_setting_can_be_given_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with several words are not taken apart in the wrong place."""
    monkeypatch.setenv("RELAY_LINKS_MAX_AGE_S", "99")
    monkeypatch.setenv("RELAY_NATS_DUPLICATE_WINDOW_S", "5")
    monkeypatch.setenv("RELAY_GAMES_FILE", "/games.toml")
    settings = load()

    assert (settings.links.max_age_s, settings.nats.duplicate_window_s) == (99, 5)
    assert settings.games_file == Path("/games.toml")


def test_backend_options_are_the_backends_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any name is taken there; the backend says which it knows."""
    monkeypatch.setenv("RELAY_BACKEND_NAME", "own")
    monkeypatch.setenv("RELAY_BACKEND_SHIFT_TO_NOW", "true")

    assert load().backend.name == "own"
    assert load().backend.options == {"shift_to_now": "true"}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RELAY_HTTP_PORT", "abc", "it must be a whole number from 0 to 65535"),
        ("RELAY_INGEST_PORT", "abc", "it must be a whole number from 0 to 65535"),
        ("RELAY_LINKS_MAX_LINKS", "-1", "it must be a whole number of at least 0"),
        ("RELAY_HTTP_REQUEST_S", "0", "it must be a number above 0 and up to 60"),
        ("RELAY_HTTP_PORT", "65536", "65535"),
        ("RELAY_LINKS_HEARTBEAT_S", "nan", "55"),
        ("RELAY_LINKS_HEARTBEAT_S", "60", "55"),
        ("RELAY_LINKS_UNSENT_BYTES", "1", "16384"),
        ("RELAY_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("RELAY_NATS_URL", "localhost:4222", "nats://"),
        ("RELAY_NATS_CREATE", "perhaps", "boolean"),
        ("RELAY_NATS_STREAM", "a.b", "pattern"),
    ],
)
def test_wrong_value_is_told_with_its_name_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """One line that an operator can act on."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as raised:
        load()

    [line] = str(raised.value).splitlines()
    assert line.startswith(f"{name}={value!r} is not allowed: ")
    assert allowed in line


def test_every_fault_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody mends settings one start at a time."""
    monkeypatch.setenv("RELAY_HTTP_PORT", "abc")
    monkeypatch.setenv("RELAY_LINKS_RETRY_MS", "-1")
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert [line.partition("=")[0] for line in str(raised.value).splitlines()] == [
        "RELAY_HTTP_PORT",
        "RELAY_LINKS_RETRY_MS",
    ]


def test_unknown_variable_is_told_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting never passes as a default."""
    monkeypatch.setenv("RELAY_LINKS_RETRY_S", "2")
    with pytest.raises(InvalidSettings, match=r"RELAY_LINKS_RETRY_S is not a setting.*RELAY_LINKS_RETRY_MS"):
        load()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("RELAY_LINKS_HEARTBEAT_MS", "there are: RELAY_LINKS_HEARTBEAT_S, RELAY_LINKS_"),
        ("RELAY_GRPC_KEEPALIVE", "there are: RELAY_GRPC_KEEPALIVE_S, "),
        ("RELAY_HTPP_PORT", "did you mean RELAY_HTTP_PORT? there are: RELAY_HTTP_…, RELAY_GRPC_…, "),
        ("RELAY_GAMESFILE", "did you mean RELAY_GAMES_FILE? "),
        ("RELAY_FOO", "is not a setting; there are: RELAY_HTTP_…, "),
    ],
)
def test_unknown_variable_is_told_its_neighbours(monkeypatch: pytest.MonkeyPatch, name: str, sentence: str) -> None:
    """Its section's, the likeliest first; or, of no section, the sections and not all that is in them."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert sentence in str(raised.value)
    assert str(raised.value).count("RELAY_") < 16


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[http]\nprot = 1\n", "relay.toml is not a setting; there are: RELAY_HTTP_PORT, RELAY_HTTP_HOST"),
        ("[htpp]\nport = 1\n", "relay.toml is not a setting; there are the sections [http], [grpc], "),
        ("[nats]\npassword = 'p'\n", "relay.toml is not allowed: user and password go together"),
        ("http = 3\n", "relay.toml is not allowed: http is a section, [http]"),
        ("x = [", "relay.toml: "),
        ("[http]\nport = 'x'\n", "relay.toml is not allowed: it must be a whole number from 0 to 65535"),
    ],
)
def test_wrong_file_is_told_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, sentence: str) -> None:
    """In the file as in the environment: the setting, its value, what is allowed."""
    monkeypatch.setenv("RELAY_CONFIG", write(tmp_path, text))
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert sentence in str(raised.value)


def test_wrong_port_of_the_platform_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for a setting that nobody gave."""
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(InvalidSettings, match=r"\APORT='http' is not allowed: "):
        load()


def test_wrong_value_of_the_environment_is_not_told_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both name the port, and the one that wins is the one at fault."""
    monkeypatch.setenv("RELAY_CONFIG", write(tmp_path, "[http]\nport = 1\n"))
    monkeypatch.setenv("RELAY_HTTP_PORT", "abc")
    with pytest.raises(InvalidSettings, match=r"\ARELAY_HTTP_PORT='abc' is not allowed: "):
        load()


def test_missing_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads nowhere does not pass as no file."""
    monkeypatch.setenv("RELAY_CONFIG", "/nowhere/relay.toml")
    with pytest.raises(InvalidSettings, match=r"RELAY_CONFIG='/nowhere/relay\.toml' is not a readable file"):
        load()


@pytest.mark.parametrize(
    "wrong",
    [
        {"RELAY_NATS_PASSWORD": "hunter2"},
        {"RELAY_NATS_USER": "u", "RELAY_NATS_PASSWORD": "hunter2", "RELAY_NATS_MAX_AGE_S": "1"},
        {"RELAY_NATS_URL": "http://u:hunter2@h"},
        {"RELAY_NATS_URL": "nats://hunter2@h, oops"},
    ],
)
def test_fault_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    """Faults of a whole section, and of a URL that carries a password, are told without it."""
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url", "nats://h:4222", "nats://h:4222"),
        ("url", "nats://u:p@h:4222,nats://token@h2", "nats://***@h:4222,nats://***@h2"),
        ("dsn", "postgres://u:a/b@h/db?x=1", "postgres://***@h/db?x=1"),
        ("dsn", "host=h password='a b' dbname=d", "host=h password=*** dbname=d"),
        ("path", "rounds.jsonl", "rounds.jsonl"),
        ("db_password", "p", "***"),
        ("api_key", "p", "***"),
        ("password", "", ""),
    ],
)
def test_what_is_shown_of_a_value(name: str, value: str, shown: str) -> None:
    """Everything but what is secret."""
    assert masked(name, value) == shown


def test_variables_that_kubernetes_adds_for_a_service_called_relay_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay starts beside a Service of its own name."""
    for name in ("RELAY_SERVICE_HOST", "RELAY_SERVICE_PORT", "RELAY_SERVICE_PORT_HTTP", "RELAY_PORT"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    monkeypatch.setenv("RELAY_PORT_8080_TCP_ADDR", "10.0.0.1")

    assert load().http.port == 8080
