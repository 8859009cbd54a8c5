"""Every kept input goes through its parser. New inputs are found by ``make fuzz``."""

import pytest

from tests.fuzz.corpus import corpus_of, targets_with_corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_parser_takes_every_input_of_its_corpus(name: str) -> None:
    """Each is accepted or refused with the parser's own error, and what is accepted keeps its promise."""
    inputs = corpus_of(name)

    assert len(inputs) == len(set(inputs)) >= 3
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_parser_takes_parts_of_its_corpus(name: str) -> None:
    """So it does with inputs that are cut off, repeated, or have one byte changed."""
    for data in corpus_of(name)[:20]:
        for at in range(0, len(data), max(1, len(data) // 8)):
            TARGETS[name](data[:at])
            TARGETS[name](data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        TARGETS[name](data + data)


def test_no_corpus_without_a_target() -> None:
    """A target that was renamed takes its corpus along."""
    assert targets_with_corpus() == set(TARGETS)
