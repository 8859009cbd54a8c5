"""Every sample of ``samples/``, started with the command of its README, against a running relay."""

from importlib.metadata import version
from typing import Final

import pytest

from tests.clients.live_relay import LiveRelay
from tests.samples.program_samples import PROGRAMS, SAMPLES, readme_commands, start

LINE: Final = r"^\[{game}\] Round \d+$"


@pytest.mark.service
@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_prints_each_round_of_its_game(relay: LiveRelay, name: str) -> None:
    """A sample prints `[crash] Round 67890` for every round."""
    with start(name, relay.environment) as sample:
        sample.wait_for(LINE.format(game="crash"), count=3, within_s=60)


@pytest.mark.service
@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_follows_the_game_in_its_environment(relay: LiveRelay, name: str) -> None:
    """GAME selects the game."""
    with start(name, relay.environment | {"GAME": "double"}) as sample:
        sample.wait_for(LINE.format(game="double"), within_s=60)


@pytest.mark.service
@pytest.mark.parametrize(
    "wrong", [{"API_KEY": "sk_live_" + "1" * 64}, {"GAME": "no-such-game"}], ids=["wrong_key", "unknown_game"]
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_that_is_refused_stops_with_one_sentence(relay: LiveRelay, name: str, wrong: dict[str, str]) -> None:
    """A wrong key or game ends a sample at once, since a retry would not help."""
    with start(name, relay.environment | wrong) as sample:
        assert sample.wait(within_s=60) == 1

    printed = "\n".join(sample.printed)
    assert "Traceback" not in printed
    assert "refused" in printed or "401" in printed or "404" in printed


@pytest.mark.service
@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_continues_after_a_restart_of_the_relay(own_relay: LiveRelay, name: str) -> None:
    """A sample reconnects when the relay is back."""
    with start(name, own_relay.environment) as sample:
        sample.wait_for(LINE.format(game="crash"), within_s=60)
        own_relay.stop()
        sample.wait_for("disconnected")
        own_relay.restart()
        sample.wait_for(LINE.format(game="crash"), count=2, within_s=60)


@pytest.mark.parametrize(
    "name", ["websocket/python", "sse/python", pytest.param("grpc/python", marks=pytest.mark.locked)]
)
def test_python_sample_ends_quietly_on_ctrl_c(name: str) -> None:
    """Ctrl-C is the normal end of a sample and prints no traceback, with or without a relay."""
    with start(name, {"BASE_URL": "http://127.0.0.1:1", "GRPC_URL": "127.0.0.1:1"}) as sample:
        sample.wait_for("disconnected", within_s=60)
        code = sample.stop()

    assert code == 130
    assert "Traceback" not in "\n".join(sample.printed)


@pytest.mark.locked
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith("python")])
def test_python_sample_pins_the_tested_versions(name: str) -> None:
    """The requirements of a sample have the versions that the tests use."""
    pins = (SAMPLES / name / "requirements.txt").read_text("ascii").split()

    assert pins == [f"{package}=={version(package)}" for package in (pin.partition("==")[0] for pin in pins)]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith("javascript")])
def test_javascript_sample_names_no_registry(name: str) -> None:
    """A lock file with the URL of a registry would make every user download from it."""
    assert '"resolved"' not in (SAMPLES / name / "package-lock.json").read_text("utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_is_short_enough_to_paste(name: str) -> None:
    """A sample is one file of at most about a hundred lines, and is started in its folder."""
    [program] = (SAMPLES / name).glob("main.*")

    assert len(program.read_text("utf-8").splitlines()) <= 110
    assert readme_commands(SAMPLES / name)[0] == f"cd samples/{name}"
