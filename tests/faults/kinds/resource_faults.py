"""Faults of resources: no space for the log, no files for a process."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults.installation import Installation
from tests.faults.kinds.fault import Fault

if TYPE_CHECKING:
    from tests.faults.parts import Part

_BALLAST: Final = bytes(1 << 16)
_SPARE_FILES: Final = 2
"""So many more than are open may be opened: a connection or two, then none."""


class FullDisk(Fault):
    """The disk of one nats-server is full. After it, the server is restarted, as docs/operations.md says.

    The store is a small tmpfs, which only root may mount; elsewhere the fault is omitted.
    """

    name, kind = "full-disk", "full disk"

    @classmethod
    def applies(cls, installation: Installation) -> bool:
        return installation.has_small_disks and super().applies(installation)

    async def begin(self) -> None:
        self.server = self.pick(self.at.nats)
        self.target = f"nats {self.at.nats.index(self.server)}"
        self.ballast = Path(self.server.store, "ballast")
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(_BALLAST):
                pass

    async def end(self) -> None:
        self.ballast.unlink(missing_ok=True)
        await self.server.kill()
        await self.server.start()


class NoFiles(Fault):
    """A relay or ingest may open no more files; what it has open stays open."""

    name, kind = "no-files", "no files"

    async def begin(self) -> None:
        self.part: Part = self.pick([part for part in self.at.parts if part.runs])
        self.target = self.part.name
        self.pid = self.part.pid
        self.before = self.part.limit_files(self.part.open_files() + _SPARE_FILES)

    async def end(self) -> None:
        if self.part.runs and self.part.pid == self.pid:
            self.part.limit_files(self.before)


FAULTS: tuple[type[Fault], ...] = (FullDisk, NoFiles)
