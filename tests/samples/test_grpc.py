"""The gRPC samples, started with the commands of their READMEs, against ``stream-relay dev``."""

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.clients.cutting_proxy import CuttingProxy
from tests.samples.grpc_relay import GrpcRelay, grpc_relay
from tests.samples.program_samples import SAMPLES, readme_commands, start

NAMES: Final = [f"grpc/{language}" for language in ("go", "javascript", "python")]
LINE: Final = r"^\[{game}\] Round (\d+)$"


@pytest.fixture(scope="module")
def relay() -> Iterator[GrpcRelay]:
    with grpc_relay() as running:
        yield running


@pytest.fixture
def own_relay() -> Iterator[GrpcRelay]:
    with grpc_relay() as running:
        yield running


@pytest.mark.service
@pytest.mark.parametrize("name", NAMES)
def test_sample_prints_the_rounds_of_its_game(relay: GrpcRelay, name: str) -> None:
    """A sample prints `[crash] Round 67890` for every round, and GAME selects the game."""
    for game in ("crash", "dice", "double"):  # double has colors and no points
        with start(name, relay.environment | {"GAME": game}) as sample:
            sample.wait_for(LINE.format(game=game), count=3, within_s=90)


@pytest.mark.service
@pytest.mark.parametrize("name", NAMES)
def test_sample_filters(relay: GrpcRelay, name: str) -> None:
    """Rounds below MIN_POINT are not sent; all others are printed."""
    with start(name, relay.environment | {"MIN_POINT": "2.5"}) as sample:
        printed = [int(line[1]) for line in sample.wait_for(LINE.format(game="crash"), count=10, within_s=90)]
    stored = relay.rounds("crash")

    between = stored[stored.index(printed[0]) : stored.index(printed[-1]) + 1]
    assert set(printed) < set(between)


@pytest.mark.service
@pytest.mark.parametrize(
    "wrong", [{"API_KEY": "sk_live_" + "1" * 64}, {"GAME": "no-such-game"}], ids=["wrong_key", "unknown_game"]
)
@pytest.mark.parametrize("name", NAMES)
def test_sample_that_is_refused_stops_with_one_sentence(relay: GrpcRelay, name: str, wrong: dict[str, str]) -> None:
    """A wrong key or game ends a sample at once, since a retry would not help."""
    with start(name, relay.environment | wrong) as sample:
        assert sample.wait(within_s=90) == 1

    printed = "\n".join(sample.printed)
    assert "Traceback" not in printed
    assert "refused" in printed


@pytest.mark.service
@pytest.mark.parametrize("name", NAMES)
def test_sample_continues_after_a_restart_of_the_relay(own_relay: GrpcRelay, name: str) -> None:
    """A sample reconnects when the relay is back with a new log."""
    with start(name, own_relay.environment) as sample:
        sample.wait_for(LINE.format(game="crash"), within_s=90)
        own_relay.stop()
        sample.wait_for("disconnected")
        own_relay.start()
        sample.wait_for("rounds after .* are gone", within_s=90)
        sample.wait_for(LINE.format(game="crash"), count=2, within_s=90)


@pytest.mark.service
@pytest.mark.parametrize("name", NAMES)
async def test_sample_whose_connections_are_cut_misses_nothing(relay: GrpcRelay, name: str) -> None:
    """A sample whose connection is cut repeatedly prints every round once, in order."""
    async with CuttingProxy(relay.grpc_port, carry_bytes=2500).listening() as proxy:
        port = urlsplit(proxy.url).port
        assert port is not None
        sample = await asyncio.to_thread(start, name, relay.environment_at(port))
        try:
            found = await asyncio.to_thread(sample.wait_for, LINE.format(game="crash"), count=60, within_s=90)
        finally:
            await asyncio.to_thread(sample.stop)
    printed, truth = [int(line[1]) for line in found], await asyncio.to_thread(relay.rounds, "crash")

    first = truth.index(printed[0])
    assert printed == truth[first : first + len(printed)]
    assert proxy.cuts >= 2


@pytest.mark.locked
def test_python_sample_pins_the_tested_versions() -> None:
    """The requirements of the sample have the versions that the tests use."""
    pins = (SAMPLES / "grpc/python/requirements.txt").read_text("ascii").split()

    assert pins == [f"{package}=={version(package)}" for package in (pin.partition("==")[0] for pin in pins)]


def test_javascript_sample_names_no_registry() -> None:
    """A lock file with the URL of a registry would make every user download from it."""
    assert '"resolved"' not in (SAMPLES / "grpc/javascript/package-lock.json").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_sample_is_short_enough_to_paste(name: str) -> None:
    """A sample is one file of at most about a hundred lines, and is started in its folder."""
    [program] = (SAMPLES / name).glob("main.*")

    assert len(program.read_text("utf-8").splitlines()) <= 105
    assert readme_commands(SAMPLES / name)[0] == f"cd samples/{name}"
