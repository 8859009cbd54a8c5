"""The pages for users agree with the code: links, variables, and every table that repeats something of the code."""

import inspect
import re
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from relay.config.sections import LinkSettings
from relay.config.settings import Settings, variables
from relay.errors import REFUSALS, Unavailable
from relay.http import application as app
from relay.http.error_body import HTTP_CODES
from relay.http.monitoring.access_metrics import access_metrics
from relay.http.monitoring.link_metrics import link_metrics
from relay.http.monitoring.metrics import Metrics
from relay.http.monitoring.round_metrics import round_metrics
from relay.http.rest import HISTORY_PARAMETERS
from relay.http.websocket import frames
from relay.http.websocket.websocket_link import CLOSE_CODES
from relay.links.messages import Action, ClientMessage
from relay.live.link import CloseReason, Disconnect
from relay.rpc.status import status_of, status_of_disconnect
from rounds import Catalogue
from tests.clients.tools import ROOT
from tests.docs.pages import PAGES, anchors, blocks, links, table, text_of, words

BROKEN_FRAMES = {int(code) for code in re.findall(r"FrameError\((\d+)", inspect.getsource(frames))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_a_target(page: Path) -> None:
    """To a file that exists, and a heading in it."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_exist(page: Path) -> None:
    """No page names a variable that is not a setting."""
    named = set(re.findall(r"\bRELAY_[A-Z0-9_]+\b(?!…)", page.read_text("utf-8")))
    whole = {name for name in named if not name.endswith("_") and not name.startswith("RELAY_BACKEND_")}

    assert whole - {"RELAY_PASSWORD"} <= set(variables())


def test_every_section_of_the_settings_is_introduced() -> None:
    """With a link to more; `stream-relay config` lists the rest."""
    rows = table(text_of("operations.md"), "section")
    sections = {name for name, field in Settings.model_fields.items() if hasattr(field.annotation, "model_fields")}

    assert {name for row in rows for name in words(row[0])} == sections


# --- errors.md ---------------------------------------------------------------------------------------------------


def test_table_of_errors_is_that_of_the_code() -> None:
    """It has every status with its code, and no other."""
    refusals = {(refusal.status, refusal.code) for refusal in REFUSALS.values()}
    others = {*HTTP_CODES.items(), (400, "bad_request"), (500, "internal")}
    source = inspect.getsource(app) + (ROOT / "relay/http/protocol.py").read_text("utf-8")
    literal = {(500, word) for word in re.findall(r'error_response\(500, "(\w+)"', source)}

    documented = {(int(status), words(code)[0]) for status, code, *_ in table(text_of("errors.md"), "status")}

    assert documented == refusals | others | literal


@pytest.mark.parametrize("page", ["grpc.md", "rest.md", "sse.md", "websocket.md"])
def test_page_of_a_protocol_names_the_statuses_of_requests_that_are_too_long_or_late(page: str) -> None:
    """Any of them can come from the HTTP server before a path is known; where one cannot, the page says so."""
    assert {"408", "413", "414", "431"} <= set(re.findall(r"\b4\d\d\b", text_of(page)))


def test_every_reason_of_an_end_is_explained() -> None:
    """Each has a row with its WebSocket close code and its gRPC status."""
    rows = {words(row[0])[0]: row for row in table(text_of("errors.md"), "reason")}

    assert set(rows) == {str(reason) for reason in CloseReason}
    for reason in CloseReason:
        codes = {int(code) for code in re.findall(r"\d{4}", rows[reason][1])}
        if reason is CloseReason.BAD_MESSAGE:
            assert codes == {CLOSE_CODES[reason], *BROKEN_FRAMES}
        elif reason is CloseReason.CLIENT:
            assert not codes  # the client's own code is sent back
        else:
            assert codes == {CLOSE_CODES[reason]} if reason in CLOSE_CODES else not codes, reason


@pytest.mark.parametrize("reason", ["completed", "draining", "max_age", "slow", "failed", "deadline"])
def test_status_of_an_end_is_as_explained(reason: str) -> None:
    """By gRPC's names."""
    rows = {words(row[0])[0]: row for row in table(text_of("errors.md"), "reason")}

    assert words(rows[reason][2]) == [status_of_disconnect(Disconnect(CloseReason(reason), None, 0)).code.name]


def test_status_of_a_full_relay_is_as_explained() -> None:
    """It is the one reason for a refusal with its own status."""
    rows = {words(row[0])[0]: row for row in table(text_of("errors.md"), "reason")}
    status = status_of(Unavailable("capacity", 1000))

    assert status is not None
    assert words(rows["capacity"][2]) == [status.code.name]


# --- websocket.md, sse.md, rest.md -------------------------------------------------------------------------------


def test_table_of_close_codes_is_that_of_the_code() -> None:
    """Every pair of code and reason that the relay can send."""
    documented = {(int(code), words(reason)[0]) for code, reason, _ in table(text_of("websocket.md"), "code")}

    assert documented == {(code, str(reason)) for reason, code in CLOSE_CODES.items()} | {
        (code, str(CloseReason.BAD_MESSAGE)) for code in BROKEN_FRAMES
    }


def test_actions_and_their_examples_are_those_of_the_code() -> None:
    """Each has a row and a message that the relay accepts."""
    page = text_of("websocket.md")
    shown = [block for block in blocks(page, "json") if '"action"' in block]

    assert [words(row[0])[0] for row in table(page, "`action`")] == list(get_args(Action))
    assert [read_message(message).action for message in shown] == list(get_args(Action))


def read_message(message: str) -> ClientMessage:
    return msgspec.json.decode(message, type=ClientMessage)


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("websocket.md", f"A message is at most {LinkSettings().message_bytes} bytes"),
        ("websocket.md", f"protocol ping every {LinkSettings().heartbeat_s:.0f} seconds"),
        ("websocket.md", f"more than {LinkSettings().unsent_bytes >> 20} MiB waits"),
        ("websocket.md", f"It has {LinkSettings().linger_s:.0f} seconds to read"),
        ("websocket.md", f"random age of {LinkSettings().max_age_s * 5 / 6 / 60:.0f} to "),
        ("sse.md", f"retry: {LinkSettings().retry_ms}\n"),
    ],
)
def test_limits_are_the_defaults(page: str, sentence: str) -> None:
    """Numbers in prose equal the defaults."""
    assert sentence in text_of(page)


def test_parameters_of_history_are_those_of_the_code() -> None:
    """The relay refuses unknown parameters, so the page has no other."""
    rows = table(text_of("rest.md"), "parameter")

    assert {name for row in rows for name in words(row[0])} == {"games", *HISTORY_PARAMETERS}


# --- operations.md, games.md -------------------------------------------------------------------------------------


def test_table_of_metrics_is_that_of_the_relay() -> None:
    """By their names in Prometheus."""
    page = text_of("operations.md")
    documented = {name.partition("{")[0] for row in table(page, "metric") for name in words(row[0])}

    assert documented == set(relay_metrics())
    alerts = {name for row in table(page, "alert") for name in re.findall(r"\brelay_\w+", row[0])}
    assert alerts <= documented


def relay_metrics() -> list[str]:
    """Return the names as declared; counters are shown with ``_total``."""
    parts = (Metrics.collect, link_metrics, round_metrics, access_metrics)
    source = "".join(inspect.getsource(part) for part in parts)
    return [
        name + ("_total" if kind == "Counter" else "")
        for kind, name in re.findall(r"(Gauge|Counter)\(\s*\"(relay_\w+)\"", source)
    ]


def test_example_of_a_games_file_loads() -> None:
    """It adds, changes and removes what the text says."""
    [example] = blocks(text_of("games.md"), "toml")
    bundled, laid_over = Catalogue.load(), Catalogue.load(example)

    assert laid_over.game("duel").value == "total"
    assert laid_over.slugs == (bundled.slugs | {"duel"}) - {"pipa-brazil"}
    assert laid_over.game("crash").name == "Crash!"
    assert laid_over.game("crash").type == bundled.game("crash").type


def test_every_page_is_found_from_the_readme() -> None:
    """Readers do not find a page without a link to it."""
    reached: set[Path] = set()
    todo: list[Path] = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        found = ((page.parent / target.partition("#")[0]).resolve() for target in links(page) if target[0] != "#")
        files = chain.from_iterable(path.glob("README.md") if path.is_dir() else [path] for path in found)
        todo += [path for path in files if path.suffix == ".md" and path not in reached]
    docs: list[Any] = [page for page in PAGES if "docs" in page.parts]

    assert set(docs) <= reached


# --- adr/ ------------------------------------------------------------------------------------------------------------


def test_list_of_decisions_has_their_titles() -> None:
    """It lists all of them by number, under their own titles."""
    listed = re.findall(r"^- \[(\d{4})\]\(([^)]*)\) (.*)$", text_of("adr/README.md"), re.MULTILINE)
    there = []
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        number, title = re.findall(r"^# (\d{4})\. (.*)$", path.read_text("utf-8"), re.MULTILINE)[0]
        there.append((number, path.name, title))

    assert [(number, name, title.partition(" (superseded")[0]) for number, name, title in listed] == there


def test_superseded_decision_and_its_successor_name_each_other() -> None:
    """The old decision links to the new one, and the list says so too."""
    pages = {path.name: path.read_text("utf-8") for path in (ROOT / "docs" / "adr").glob("0*.md")}
    found = 0
    for name, text in pages.items():
        for newer in re.findall(r"^Superseded by \[\d{4}\]\((.*?)\)", text, re.MULTILINE):
            found += 1
            assert f"]({name})" in pages[newer]
            assert re.search(rf"\({re.escape(name)}\).*\(superseded by {newer[:4]}\)", text_of("adr/README.md"))
    assert found
