"""All cases of h2spec, also the strict ones."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.clients.tools import ROOT, go_modules, tool
from tests.relay.http2.serving_streams import serving

pytestmark = pytest.mark.service

_FOLDER: Final = Path(__file__).parent / "h2spec"
_PACKAGE: Final = "github.com/summerwind/h2spec/cmd/h2spec"


@cache
def h2spec() -> str:
    """Build h2spec, once per run; skip the test without Go or its module proxy."""
    go_modules(_FOLDER)
    program = ROOT / ".cache" / "bin" / "h2spec"
    subprocess.run([tool("go"), "build", "-o", str(program), _PACKAGE], cwd=_FOLDER, check=True, timeout=250)
    return str(program)


def test_h2spec() -> None:
    """It finds nothing."""
    program = h2spec()
    with serving() as server:
        done = subprocess.run(
            [program, "--strict", "--port", str(server.port), "--path", "/hello", "--timeout", "5"],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert "146 tests, 146 passed, 0 skipped, 0 failed" in done.stdout, done.stdout
