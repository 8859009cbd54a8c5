"""Compile `relay/live/sending/_send_loop.c` for a wheel: what hatchling calls for `pip install` and `python -m build`.

Without a compiler the wheel has no compiled part, and the relay does the same in Python. Environment variables:

    STREAM_RELAY_COMPILE    auto (default): compile if possible; always: fail if not; never: build for any platform
    STREAM_RELAY_PLATFORM   the platform tag of a wheel for other machines, such as manylinux_2_17_aarch64
    CC, CFLAGS, LDFLAGS     as usual
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

SOURCE = Path("relay/live/sending/_send_loop.c")
COMPILED = SOURCE.with_suffix(".abi3.so")
"""Beside its source, where an editable installation finds it too. It serves CPython 3.11 and all later ones."""
TAG = "cp311-abi3"
CHOICES = ("auto", "always", "never")


class SendLoopHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled part to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the source tree; `version` is ``standard`` or ``editable``."""
        choice = os.environ.get("STREAM_RELAY_COMPILE") or "auto"
        if choice not in CHOICES:
            raise SystemExit(f"STREAM_RELAY_COMPILE={choice!r} is not allowed: use {', '.join(CHOICES)}")
        (Path(self.root) / COMPILED).unlink(missing_ok=True)  # it may be of another version, or another machine
        if choice == "never":
            return
        if fault := compile_fault(Path(self.root)):
            if choice == "always":
                raise SystemExit(f"{SOURCE} was not compiled: {fault}")
            self.app.display_warning(f"{SOURCE} was not compiled, rounds are sent in Python: {fault}")
        elif version != "editable":
            build_data["artifacts"].append(f"/{COMPILED}")
            build_data["pure_python"] = False
            build_data["tag"] = f"{TAG}-{os.environ.get('STREAM_RELAY_PLATFORM') or platform_tag()}"


def compile_fault(root: Path, *more_flags: str, output: Path = COMPILED) -> str | None:
    """Compile into `output`; return why that failed, in one line, or None."""
    if sys.implementation.name != "cpython" or os.name != "posix":
        return f"it needs CPython on a POSIX system, this is {sys.implementation.name} on {sys.platform}"
    command = [*shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"), "-O2", "-fPIC"]
    command += ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    command += [*more_flags, *shlex.split(os.environ.get("CFLAGS", "")), *shlex.split(os.environ.get("LDFLAGS", ""))]
    command += [f"-I{sysconfig.get_path('include')}", str(SOURCE), "-o", str(output)]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
        return f"{command[0]} failed with status {done.returncode} {lines[0]}".rstrip()
    return None


def platform_tag() -> str:
    """Return the platform of a wheel for this machine."""
    if sys.platform == "linux":  # without the version of the C library, which only a release looks at
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return next(sys_tags()).platform
