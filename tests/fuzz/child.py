"""Fuzz one target in this process, with atheris: ``python -m tests.fuzz.child TARGET SECONDS FOLDER``.

Imports the parsers while atheris instruments them, so nothing here may import them before.
"""

import sys
from hashlib import sha1
from pathlib import Path
from typing import Final

import atheris

from tests.fuzz.corpus import corpus_of

_LONGEST: Final = 4096
"""Bytes of an input; parsers with larger limits behave in the same way."""
_PACKAGES: Final = ["auth", "backends", "relay", "rounds", "websockets"]
"""What is instrumented. All modules of a process would take a minute."""


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz for a time, starting from the corpus and from what earlier runs found in the folder."""
    with atheris.instrument_imports(include=_PACKAGES):
        from tests.fuzz.targets import TARGETS
    found = Path(folder) / name
    found.mkdir(parents=True, exist_ok=True)
    for data in corpus_of(name):
        (found / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    limits = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-timeout=5", "-rss_limit_mb=1024"]
    artifacts = f"-artifact_prefix={Path(folder) / 'crashes' / name}/"
    atheris.Setup([sys.argv[0], *limits, artifacts, str(found)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
