"""Settings: their sources, their precedence, and one sentence for each wrong one."""

from pathlib import Path
from typing import Any

import pytest

from relay.config.settings import InvalidSettings, load, masked, variables


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset all variables that the developer's shell has set."""
    for name in [*variables(), "PORT"]:
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str) -> str:
    path = folder / "relay.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_every_setting_has_a_default() -> None:
    """A relay needs keys and secrets, and no other setting."""
    settings = load()

    assert settings.http.port == 8080
    assert settings.links.heartbeat_s < 15, "clients are promised a sign of life every 15 s"
    assert settings.drain.margin_s < settings.drain.grace_s <= 10, "Cloud Run gives 10 s"


def test_command_line_overrides_environment_overrides_file_overrides_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next source in this order applies when the one before it is removed."""
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
    """Names of several words are split into section and field correctly."""
    monkeypatch.setenv("RELAY_LINKS_MAX_AGE_S", "99")
    monkeypatch.setenv("RELAY_NATS_DUPLICATE_WINDOW_S", "5")
    monkeypatch.setenv("RELAY_GAMES_FILE", "/games.toml")
    settings = load()

    assert (settings.links.max_age_s, settings.nats.duplicate_window_s) == (99, 5)
    assert settings.games_file == Path("/games.toml")


def test_backend_options_are_the_backends_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The section ``backend`` accepts any name; the backend checks its options."""
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
        ("RELAY_NATS_CREATE", "perhaps", "it must be a boolean, true or false"),
        ("RELAY_LINKS_COMPILED_SENDS", "2", "it must be a boolean, true or false"),
        ("RELAY_GRPC_REFLECTION", "on", "it must be 'public', 'key' or 'off'"),
        ("RELAY_NATS_STREAM", "a.b", "pattern"),
    ],
)
def test_wrong_value_is_reported_with_its_name_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """The error has one line."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as raised:
        load()

    [line] = str(raised.value).splitlines()
    assert line.startswith(f"{name}={value!r} is not allowed: ")
    assert allowed in line


def test_port_of_probes_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything listens; 0 is another one each time."""
    monkeypatch.setenv("RELAY_HTTP_MONITOR_PORT", "8080")
    with pytest.raises(InvalidSettings, match=r"^RELAY_HTTP is not allowed: monitor_port and port are both 8080; .*$"):
        load()

    monkeypatch.setenv("RELAY_HTTP_PORT", "0")
    monkeypatch.setenv("RELAY_HTTP_MONITOR_PORT", "0")
    assert load().http.monitor_port == 0


def test_every_wrong_setting_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error reports all wrong settings."""
    monkeypatch.setenv("RELAY_HTTP_PORT", "abc")
    monkeypatch.setenv("RELAY_LINKS_RETRY_MS", "-1")
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert [line.partition("=")[0] for line in str(raised.value).splitlines()] == [
        "RELAY_HTTP_PORT",
        "RELAY_LINKS_RETRY_MS",
    ]


def test_unknown_variable_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting is an error, so its default is not used unnoticed."""
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
def test_unknown_variable_is_refused_with_similar_ones(
    monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    """The sentence lists the settings of its section, the most similar first; for an unknown section, the sections."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert sentence in str(raised.value)
    assert str(raised.value).count("RELAY_") < 20


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
def test_error_in_the_file_is_reported_with_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, sentence: str
) -> None:
    """The sentence has the setting in the file, its value and what is allowed."""
    monkeypatch.setenv("RELAY_CONFIG", write(tmp_path, text))
    with pytest.raises(InvalidSettings) as raised:
        load()

    assert sentence in str(raised.value)


def test_wrong_port_of_the_platform_is_reported_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names PORT, not a setting that is not set."""
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(InvalidSettings, match=r"\APORT='http' is not allowed: "):
        load()


def test_wrong_value_of_the_environment_is_not_reported_for_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both set the port, and the sentence names the source that takes precedence."""
    monkeypatch.setenv("RELAY_CONFIG", write(tmp_path, "[http]\nport = 1\n"))
    monkeypatch.setenv("RELAY_HTTP_PORT", "abc")
    with pytest.raises(InvalidSettings, match=r"\ARELAY_HTTP_PORT='abc' is not allowed: "):
        load()


def test_missing_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that does not exist is an error."""
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
def test_error_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    """Errors of a whole section, and of a URL with a password, do not contain the secret."""
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
def test_masked_value(name: str, value: str, shown: str) -> None:
    """Everything except secrets is shown."""
    assert masked(name, value) == shown


def test_variables_that_kubernetes_sets_for_a_service_named_relay_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay starts in a namespace with a Service of its name."""
    for name in ("RELAY_SERVICE_HOST", "RELAY_SERVICE_PORT", "RELAY_SERVICE_PORT_HTTP", "RELAY_PORT"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    monkeypatch.setenv("RELAY_PORT_8080_TCP_ADDR", "10.0.0.1")

    assert load().http.port == 8080


@pytest.mark.parametrize(
    ("overrides", "environment"),
    [
        ({}, {}),
        ({"http": {"port": 1}}, {"RELAY_HTTP_PORT": "2", "RELAY_HTTP_HOST": "::1", "PORT": "3"}),
        ({"grpc": {"port": 1}}, {"PORT": "3", "RELAY_GRPC_TLS_CERT_FILE": "/c", "RELAY_GRPC_TLS_KEY_FILE": "/k"}),
        ({}, {"RELAY_LIMITS_SHARED": "off", "RELAY_LINKS_HEARTBEAT_S": "0.5", "RELAY_AUTH_KEYS": "k=sha256:0"}),
        ({}, {"RELAY_GAMES_FILE": "/games.toml", "RELAY_DRAIN_ACCEPT_S": "3", "RELAY_LOG_LEVEL": "error"}),
        ({}, {"RELAY_BACKEND_NAME": "own", "RELAY_BACKEND_SHIFT_TO_NOW": "true", "RELAY_NATS_URL": ""}),
        ({}, {"RELAY_SERVICE_HOST": "10.0.0.1", "RELAY_PORT_8080_TCP": "tcp://10.0.0.1:8080"}),
        ({}, {"relay_http_port": "7", "RELAY_LINKS_RETRY_MS": "8"}),
        ({}, {"RELAY_HTTP_PORT": "abc", "RELAY_LINKS_RETRY_MS": "-1", "PORT": "x"}),
        ({}, {"PORT": "x", "RELAY_AUTH_STORE": "postgres", "RELAY_AUTH_TOKEN_SECRETS": "hidden"}),
        ({}, {"RELAY_HTTP_METRICS": "key", "RELAY_BACKEND_NAME": ""}),
    ],
)
def test_settings_read_quickly_are_those_of_the_library(
    monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], environment: dict[str, str]
) -> None:
    """Each value, what was set, and the sentence about each wrong value."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def read(*, quickly: bool) -> list[object]:
        try:
            settings = load(overrides, quickly=quickly)
        except InvalidSettings as error:
            return [str(error)]
        return [settings, type(settings), *((name, getattr(part, "model_fields_set", None)) for name, part in settings)]

    assert read(quickly=True) == read(quickly=False)
