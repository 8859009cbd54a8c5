"""The form of a log line, and what a log line never contains."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from relay.config.log_limits import LineLimit
from relay.config.logs import configure

KEY = f"sk_live_{'4' * 64}"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkZW1vIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Restore the loggers after each test, since they are global."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == "", "stdout is for what commands print"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The line has the name, the level, the time in UTC, and the fields."""
    configure(log_format="json", level="info")
    structlog.get_logger().info("link_closed", reason="slow", age_s=1.5, text="a\nb")

    [line] = lines(capsys)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "link_closed", "level": "info", "reason": "slow", "age_s": 1.5, "text": "a\nb"}


def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """The level applies to our events and to those of libraries."""
    configure(log_format="json", level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("aiohttp.server").info("quiet")
    logging.getLogger("nats").error("loud too")

    assert [line["event"] for line in lines(capsys)] == ["loud", "loud too"]


def test_libraries_log_only_warnings_and_errors_even_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    """Their debug lines quote the input of clients."""
    configure(log_format="json", level="debug")
    logging.getLogger("asyncio").debug("using selector")
    structlog.get_logger().debug("ours")

    assert [line["event"] for line in lines(capsys)] == ["ours"]


@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_no_format_logs_a_secret(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """Secrets are masked in events, fields and exceptions, of our code and of libraries."""
    configure(log_format=log_format, level="debug")
    log = structlog.get_logger()
    text = f"key {KEY}"
    log.info(text, path=f"/sse/crash?api_key={KEY}&token={TOKEN}", headers={"X-API-Key": KEY, "a": [TOKEN]})
    with structlog.contextvars.bound_contextvars(link=KEY):
        log.info("bound")
    try:
        raise ValueError(f"cannot read {KEY}")
    except ValueError:
        log.exception("request_failed", token=TOKEN)
        logging.getLogger("aiohttp.server").exception("Error handling %s", TOKEN)

    printed = capsys.readouterr().err
    assert "request_failed" in printed
    assert "ValueError" in printed
    assert KEY[8:] not in printed
    assert TOKEN.rpartition(".")[2] not in printed


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("asyncio", "socket.send() raised exception."),
        ("grpc._cython.cygrpc", "ExecuteBatchError raised in core by servicer method [/datastream.DataStream/Replay]"),
    ],
)
def test_lines_of_libraries_about_clients_that_left_are_debug_lines(
    capsys: pytest.CaptureFixture[str], logger: str, message: str
) -> None:
    """They are no errors, and have no traceback."""
    for level in ("info", "debug"):
        configure(log_format="json", level=level)
        try:
            raise ConnectionResetError
        except ConnectionResetError:
            logging.getLogger(logger).exception(message)

    [line] = lines(capsys)
    assert line.pop("time")
    assert line == {"event": message, "level": "debug", "logger": logger}


def test_repeated_lines_of_libraries_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Clients may cause any of them: ten of a kind are logged in ten seconds, others are not affected."""
    configure(log_format="json", level="info")
    for number in range(500):
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", number)
    logging.getLogger("asyncio").error("Unclosed connection")

    assert len(lines(capsys)) == 11


def test_line_limit_reports_what_was_left_out() -> None:
    """The first line of the next period has the number of lines that were left out."""
    now = [0.0]
    limit = LineLimit(lines=2, period_s=10, clock=lambda: now[0])

    assert [limit.allow("a") for _ in range(5)] == [0, 0, None, None, None]
    now[0] = 9.0
    assert limit.allow("a") is None
    assert limit.allow("b") == 0
    now[0] = 10.0
    assert [limit.allow("a") for _ in range(3)] == [4, 0, None]


def test_line_limit_is_bounded() -> None:
    """The number of kinds is the choice of clients."""
    limit = LineLimit()
    for number in range(5000):
        limit.allow(number)

    assert len(limit._kinds) <= 1000


def test_client_cannot_forge_a_line_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Ends of lines, escape sequences and changes of direction are shown escaped."""
    configure(log_format="console", level="info")
    structlog.get_logger().info("opened", user_agent="a\nlink_closed\r\x1b[2J\u202eb\u2028c", path="/x y")

    [line] = capsys.readouterr().err.splitlines()
    assert r"a\nlink_closed\r\x1b[2J\u202eb\u2028c" in line
