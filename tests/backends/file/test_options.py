"""Options are read from text and from typed values, and each wrong option has one line."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.contract import BackendContext, InvalidOptions
from backends.file import FileReplay
from backends.file.file_options import FileOptions
from backends.file.recording.formats import FORMATS
from rounds import Catalogue

CATALOGUE = Catalogue.load()
NINE = datetime(2026, 1, 18, 9, tzinfo=UTC)


def test_text_of_the_environment_and_values_of_toml_mean_the_same() -> None:
    """Every option can be given in either form."""
    text = {
        "path": "rounds",
        "format": "csv.gz",
        "speed": "10",
        "from": "2026-01-18T06:00:00-03:00",
        "to": "2026-01-18T10:00:00Z",
        "games": "crash, double",
        "loop": "true",
        "shift_to_now": "true",
        "max_gap_s": "5",
        "state_file": "state.json",
        "rejects_file": "rejects.log",
        "max_line_bytes": "2048",
    }
    typed = text | {
        "speed": 10,
        "from": NINE,
        "to": datetime(2026, 1, 18, 10, tzinfo=UTC),
        "games": ["crash", "double"],
        "loop": True,
        "shift_to_now": True,
        "max_gap_s": 5,
        "max_line_bytes": 2048,
    }

    options = FileOptions.parse(text, CATALOGUE)

    assert options == FileOptions.parse(typed, CATALOGUE)
    assert (options.from_, options.games, options.speed) == (NINE, frozenset({"crash", "double"}), 10.0)
    assert (options.format, options.state_file) == (FORMATS["csv.gz"], Path("state.json"))


def test_only_the_path_is_needed() -> None:
    """By default all rounds are played once at their original cadence, and a malformed line stops the run."""
    options = FileOptions.parse({"path": "rounds.jsonl"}, CATALOGUE)

    assert (options.speed, options.loop, options.games, options.rejects_file) == (1.0, False, frozenset(), None)
    assert FileOptions.parse({"path": "rounds.jsonl", "speed": "max"}, CATALOGUE).speed == math.inf


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"path": None}, "option path=.* is not allowed; it takes a file, a folder, or - for standard input"),
        ({"path": ""}, "option path='' is not allowed"),
        ({"sped": "1"}, "option 'sped' is unknown; there are: format, from, games, loop, .*speed"),
        ({"speed": "fast"}, "option speed='fast' is not allowed; it takes a number above 0, or max"),
        ({"speed": "0"}, "option speed='0' is not allowed"),
        ({"speed": "-1"}, "option speed='-1' is not allowed"),
        ({"speed": "nan"}, "option speed='nan' is not allowed"),
        ({"from": "yesterday"}, "option from='yesterday' is not allowed; it takes a time with its zone"),
        ({"from": "2026-01-18T10:00:00"}, "option from='2026-01-18T10:00:00' is not allowed"),
        ({"to": 5}, "option to='5' is not allowed"),
        ({"from": "2026-01-18T10:00:00Z", "to": "2026-01-18T10:00:00Z"}, "option from .* must be earlier than to"),
        ({"games": "crash,chess"}, "option games: unknown game 'chess'; known games: aviador, "),
        ({"games": "crash,"}, "option games: unknown game ''"),
        ({"games": 5}, "option games='5' is not allowed; it takes slugs separated by commas"),
        ({"loop": "perhaps"}, "option loop='perhaps' is not allowed; it takes true or false"),
        ({"format": "xml"}, "option format='xml' is not allowed; it takes one of jsonl, csv, jsonl.gz"),
        ({"format": 5}, "option format='5' is not allowed; it takes one of jsonl, csv, jsonl.gz"),
        ({"max_gap_s": "0"}, "option max_gap_s='0' is not allowed; it takes a number of seconds above 0"),
        ({"max_line_bytes": "1"}, "option max_line_bytes='1' is not allowed; it takes a whole number from 1024"),
        ({"path": "-", "loop": True}, "option loop cannot be used with path '-'"),
        ({"path": "-", "state_file": "s"}, "option state_file cannot be used with path '-'"),
    ],
)
def test_wrong_option_is_named_with_its_value_and_what_is_allowed(wrong: dict[str, object], sentence: str) -> None:
    """The constructor raises one line, before anything is opened."""
    with pytest.raises(InvalidOptions, match=sentence) as raised:
        FileReplay({"path": "rounds.jsonl", **wrong}, BackendContext(CATALOGUE))

    assert "\n" not in str(raised.value)


def test_each_wrong_option_has_its_own_line() -> None:
    """One error reports all wrong options."""
    with pytest.raises(InvalidOptions) as raised:
        FileOptions.parse({"speed": "fast", "loop": "perhaps"}, CATALOGUE)

    assert str(raised.value).splitlines() == [
        "option path is missing (RELAY_BACKEND_PATH); it takes a file, a folder, or - for standard input",
        "option speed='fast' is not allowed; it takes a number above 0, or max",
        "option loop='perhaps' is not allowed; it takes true or false",
    ]
