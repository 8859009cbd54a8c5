"""Programs that benchmarks build: kept in the user's cache directory, and built again when a source has changed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what benchmarks build; it exists."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base, "stream-relay-bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def built(
    name: str, sources: Sequence[Path], command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> Path:
    """Run `command`, in which ``{output}`` is the program to write, unless the program of these sources exists.

    Args:
        name: Of the program.
        sources: All files that it is made from.
        command: What builds it; runs in the folder of the first source.
        environment: Variables to add to those of this process.

    Raises:
        SystemExit: It cannot be built; has the end of what the command printed.
    """
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    program = cache_folder() / f"{name}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    print(f"building {name}, once ...", file=sys.stderr, flush=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    words = [word.replace("{output}", str(unfinished)) for word in command]
    run = subprocess.run(
        words, cwd=sources[0].parent, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"{name} cannot be built: {(run.stderr or run.stdout)[-2000:]}")
    unfinished.rename(program)
    return program
