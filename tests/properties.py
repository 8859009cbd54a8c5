"""The settings of all property tests, in one place; tests set `max_examples` and only what makes them different.

Owns two profiles of hypothesis. ``suite`` is loaded by `tests/conftest.py`. It runs the same examples on every machine
and never fails for slowness. ``search`` looks for new examples and remembers those that failed; choose it with
``pytest --hypothesis-profile=search``.
"""

from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.database import DirectoryBasedExampleDatabase

_CACHE: Final = Path(__file__).parents[1] / ".cache" / "hypothesis"


def load_profiles() -> None:
    """Register both profiles and load ``suite``."""
    set_hypothesis_home_dir(_CACHE)
    settings.register_profile(
        "suite",
        max_examples=30,  # the same in each run, so more are for `search`, and `make check` takes half a minute
        deadline=None,  # the first example of a run builds hypothesis' character tables, for seconds on a busy machine
        suppress_health_check=[HealthCheck.too_slow],  # likewise
        derandomize=True,
        database=None,  # not needed, since the examples are always the same
        print_blob=True,
    )
    settings.register_profile(
        "search",
        settings.get_profile("suite"),
        max_examples=1000,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(_CACHE / "examples"),
    )
    settings.load_profile("suite")
