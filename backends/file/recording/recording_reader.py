"""Read a recording from an offset to its end, file by file, in batches of items.

Owns the reading thread, and what happens to lines that are not rounds. Knows nothing of time, loops or state files.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from backends.contract import SourceError
from backends.file.file_offset import FileOffset
from backends.file.recording.formats import FORMATS, Format, InvalidHeader, parser_for
from backends.file.recording.interpret import Interpreter, Item, RecordingSelection
from backends.file.recording.lines import LineCutter
from backends.file.recording.rejects_file import RejectsFile
from backends.file.recording.sources import Recording, RecordingStream, open_recording, open_stdin


class Reader:
    """Reads passes over `recordings`, or standard input when the list is empty. Call `close` at the end."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        selection: RecordingSelection,
        rejects: RejectsFile | None,
        stdin_format: Format | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        """Take `on_read`, which is called with `done_bytes` after each chunk."""
        self._recordings = recordings
        self._selection = selection
        self._rejects = rejects
        self._stdin_format = stdin_format or FORMATS["jsonl"]
        self._on_read = on_read
        self._stream: RecordingStream | None = None
        self._earlier_bytes = 0  # of the files before the current one
        # Reading blocks, for long on slow disks. A single thread, so that no stream is closed while it is read.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="file-replay")

    @property
    def done_bytes(self) -> int:
        """Number of bytes on disk that this pass has read."""
        return self._earlier_bytes + (self._stream.done_bytes if self._stream is not None else 0)

    def close(self) -> None:
        """Stop reading and close the open file."""
        if self._stream is not None:
            self._stream.interrupt()
            self._thread.submit(self._stream.close)
        self._thread.shutdown()

    async def read(self, start: FileOffset, *, report: bool) -> AsyncGenerator[list[Item], None]:
        """Yield the items after `start`, to the end of the pass.

        With `report`, a line that is not a round becomes an item and goes to the rejects file. Without it, such lines
        are skipped, since an earlier pass has reported them.

        Raises:
            SourceError: A file cannot be read, or a line is not a round and there is no rejects file.
        """
        offset = start
        for index in range(start.file, max(1, len(self._recordings))):
            self._earlier_bytes = sum(recording.size for recording in self._recordings[:index])
            if index != start.file:
                offset = offset._replace(file=index, line=0)  # the other fields are of the whole pass
            async with aclosing(self._read_file(offset, report=report)) as batches:
                async for batch in batches:
                    offset = batch[-1].offset
                    yield batch

    async def _read_file(self, start: FileOffset, *, report: bool) -> AsyncGenerator[list[Item], None]:
        stream, format_ = self._open(start.file)
        self._stream = stream
        on_malformed = self._report if report or self._rejects is None else _ignore
        interpreter = Interpreter(stream.name, parser_for(format_), self._selection, start, on_malformed)
        cutter = LineCutter(self._selection.max_line_bytes)
        in_thread = asyncio.get_running_loop().run_in_executor
        try:
            while chunk := await in_thread(self._thread, stream.read):
                for batch in interpreter.items(cutter.feed(chunk)):
                    yield batch
                if self._on_read is not None:
                    self._on_read(self.done_bytes)
                if self._rejects is None and (line := cutter.overflow) is not None:
                    interpreter.refuse(line)  # without waiting for its end, which may never come
            for batch in interpreter.items(cutter.finish()):
                yield batch
        except InvalidHeader as error:
            raise SourceError(f"{stream.name}: {error}") from error
        self._stream = None
        stream.close()

    def _open(self, file: int) -> tuple[RecordingStream, Format]:
        if self._recordings:
            recording = self._recordings[file]
            return open_recording(recording), recording.format
        return open_stdin(self._stdin_format.compression), self._stdin_format

    def _report(self, file: str, line: int, reason: str, raw: bytes) -> bool:
        if self._rejects is None:
            raise SourceError(
                f"{file}:{line} is not a round: {reason} (correct the line, or set rejects_file to skip such lines)"
            )
        self._rejects.write(file=file, line=line, reason=reason, raw=raw)
        return True


def _ignore(_file: str, _line: int, _reason: str, _raw: bytes) -> bool:
    return False
