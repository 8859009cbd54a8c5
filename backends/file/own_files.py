"""Files that only this account may read, made so that other accounts cannot redirect or prepare them.

Owns how the state file and the rejects file are opened: they may be in a folder that others can write to, such as
``/tmp``. Then a file or a link that another account has put there is refused. Does not know their content.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

_TO_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o600


class ForeignFile(PermissionError):
    """Another account has put a file or a link where one of ours belongs."""

    def __init__(self, what: str) -> None:
        super().__init__(0, f"{what} of another account, in a folder that others can write to")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that takes the place of `path` at the end of the block; after an error, `path` is as before.

    A link at `path` is replaced, not followed. Raises OSError.
    """
    # mkstemp: a name that nobody can know, mode 0600, and no link is followed.
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(file.name).unlink(missing_ok=True)
            raise


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file to append to it, unbuffered; a new one gets mode 0600, an existing one keeps its own.

    Raises:
        ForeignFile: It is of another account, and so may be any file that it links to.
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path, _TO_APPEND | os.O_NOFOLLOW, _MODE)
    except OSError:
        if not path.is_symlink():
            raise
        # As /dev/stdout is, and files that an operator keeps elsewhere.
        _check("the link is", path.lstat(), path)
        descriptor = os.open(path, _TO_APPEND, _MODE)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            _check("the file is", found, path)
        return os.fdopen(descriptor, "ab", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def _check(what: str, found: os.stat_result, path: Path) -> None:
    """Refuse what another account owns in a folder that others can write to, as Linux's ``fs.protected_*`` do."""
    if path.parent.stat().st_mode & stat.S_IWOTH and found.st_uid not in (0, os.geteuid()):
        raise ForeignFile(what)
