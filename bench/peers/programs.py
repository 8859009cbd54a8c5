"""The programs in Go: one client for all servers, a grpc-go server, and Centrifugo. Built once, if Go is here."""

import shutil
from pathlib import Path
from typing import Final, Literal

from bench._cache import built

_FOLDER: Final = Path(__file__).with_name("go")
_CENTRIFUGO: Final = Path(__file__).with_name("centrifugo")
_PACKAGE: Final = "github.com/centrifugal/centrifugo/v6"

Name = Literal["client", "grpcserver", "centrifugo"]


def missing() -> str | None:
    """Say what is missing to build them; None when nothing is."""
    return None if shutil.which("go") else "Go is not here (https://go.dev/dl/), which the client and all peers need"


def program(name: Name) -> Path:
    """Build a program, unless that was done; Centrifugo takes two minutes.

    Raises:
        SystemExit: It cannot be built.
    """
    if name == "centrifugo":
        sources = [_CENTRIFUGO / "go.mod", _CENTRIFUGO / "go.sum"]
        return built(name, sources, ["go", "build", "-buildvcs=false", "-o", "{output}", _PACKAGE])
    sources = [_FOLDER / "go.mod", _FOLDER / "go.sum", *sorted((_FOLDER / name).glob("*.go"))]
    return built(name, sources, ["go", "build", "-buildvcs=false", "-o", "{output}", f"./{name}"])
