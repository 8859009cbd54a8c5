"""The metrics of a relay."""

import urllib.request
from collections.abc import Mapping

from bench._relay import RelayProcess


def scrape(process: RelayProcess) -> Mapping[str, float]:
    """Return every value of ``/metrics`` by its name, labels included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}
