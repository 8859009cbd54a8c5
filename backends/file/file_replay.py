"""The backend ``file``: composes reading, pacing, loops and the offset to resume from.

Rounds of a loop get ids from a counter that starts at the clock's time; docs/file-replay.md says why.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from backends.contract import BackendContext, Captured, Rejected, SourceError, SourceOffsets
from backends.file.checkpoint import Checkpoint
from backends.file.file_offset import FileOffset
from backends.file.file_options import FileOptions
from backends.file.pacing import Clock, RecordingPace, SystemClock
from backends.file.recording.interpret import Item, RecordingSelection
from backends.file.recording.recording_reader import Reader
from backends.file.recording.rejects_file import RejectsFile
from backends.file.recording.sources import Recording, find
from backends.file.rewrite import Rewrite, make_rewrite
from backends.file.stored_before import StoredBefore

if TYPE_CHECKING:
    from backends.file.progress import ProgressBar

log = structlog.get_logger()

_SEAM_MS: Final = 1000
"""Time between the last round of a pass and the first round of the next, in the recording's time."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The parts that exist while `FileReplay.open` is entered."""

    reader: Reader
    start: FileOffset
    rewrite: Rewrite | None
    checkpoint: Checkpoint | None
    stored_before: StoredBefore | None
    progress: "ProgressBar | None"


class FileReplay:
    """Replays recorded rounds. The options are described in docs/file-replay.md."""

    def __init__(self, options: Mapping[str, object], context: BackendContext, *, clock: Clock | None = None) -> None:
        """Check the options; raise `InvalidOptions`. Opens nothing."""
        self._options = FileOptions.parse(options, context.catalogue)
        self._context = context
        self._clock = clock or SystemClock()
        self._confirmed: FileOffset | None = None
        self._first_id = 0
        self._offsets: SourceOffsets[Any] | None = None
        self._run: _Run | None = None
        self._stdin_used = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the recordings and the offset to resume from.

        Raises:
            SourceError: There is no recording, or the state or rejects file cannot be used.
        """
        options = self._options
        if options.is_stdin and self._stdin_used:
            raise SourceError("standard input can be read only once; restart the program to read it again")
        self._stdin_used = options.is_stdin
        recordings = [] if options.is_stdin else find(Path(options.path), options.format)
        _check_not_among(recordings, options.rejects_file, "rejects_file")
        _check_not_among(recordings, options.state_file, "state_file")
        with ExitStack() as stack:
            checkpoint = start = None
            if options.state_file is not None:
                checkpoint = Checkpoint(options.state_file, recordings)
                start = self._resume(checkpoint)
                stack.callback(checkpoint.close)
            start = self._confirmed or start or FileOffset.start()
            if options.loop and not self._first_id:
                self._first_id = self._clock.wall_ms() * 1000
            if checkpoint is not None:
                checkpoint.begin(start, self._first_id)
            rejects = stack.enter_context(RejectsFile(options.rejects_file)) if options.rejects_file else None
            selection = RecordingSelection(
                self._context.catalogue, options.games, options.span_ms, options.max_line_bytes
            )
            progress = None if options.loop else self._progress_bar(recordings, stack)
            on_read = None if progress is None else progress.read
            reader = Reader(recordings, selection, rejects, options.format, on_read)
            stack.callback(reader.close)
            first_id = self._first_id if options.loop else 0
            rewrite = make_rewrite(first_id=first_id, speed=options.speed, shift_to_now=options.shift_to_now)
            self._run = _Run(reader, start, rewrite, checkpoint, self._stored_before(recordings), progress)
            try:
                yield
            finally:
                self._run = None

    async def read(self) -> AsyncGenerator[Sequence[Item], None]:
        """Yield rounds when they are due, from the resumed offset on; see `backends.contract.Backend.read`."""
        run = self._run
        if run is None:
            raise RuntimeError("read() needs open() to be entered")
        played = run.start.played
        if run.stored_before is not None:
            await run.stored_before.recall(run.start)
        async with aclosing(self._recorded(run)) as recorded, aclosing(self._paced(recorded, run.rewrite)) as paced:
            async for batch in paced:
                yield batch
                played = batch[-1].offset.played
                if run.progress is not None:
                    run.progress.show(run.reader.done_bytes, played - run.start.played)
        if run.progress is not None:
            run.progress.finished()
        log.info("replay_finished", path=self._options.path, rounds=played - run.start.played)

    def confirm(self, offset: FileOffset) -> None:
        """Resume after `offset` when opened again; with a state file, also in the next process."""
        self._confirmed = offset
        if self._run is not None and self._run.checkpoint is not None:
            self._run.checkpoint.note(offset)

    def offset_text(self, offset: FileOffset) -> bytes | None:
        """Write an offset for the log. See `backends.contract.HasOffsets`."""
        run = self._run
        return None if run is None or run.stored_before is None else run.stored_before.offset_text(offset)

    def attach(self, offsets: SourceOffsets[Any]) -> None:
        """Take the log's knowledge of the recording. See `backends.contract.HasOffsets`."""
        self._offsets = offsets

    def _stored_before(self, recordings: Sequence[Recording]) -> StoredBefore | None:
        """Return None when no round can be in the log already: a loop without a state file always has new ids."""
        has_state = self._options.state_file is not None
        if self._offsets is None or not recordings or (self._options.loop and not has_state):
            return None
        return StoredBefore(self._offsets, recordings[0], writes_offsets=has_state)

    def _resume(self, checkpoint: Checkpoint) -> FileOffset | None:
        resumed = checkpoint.load()
        if resumed is None:
            return None
        offset = resumed.offset
        self._first_id = self._first_id or resumed.first_id
        log.info(
            "replay_resumed",
            path=self._options.path,
            file=offset.file,
            line=offset.line,
            pass_number=offset.pass_.number,
        )
        return offset

    async def _recorded(self, run: _Run) -> AsyncGenerator[list[Item], None]:
        """Yield the recording unchanged, once or, with ``loop``, again and again."""
        offset = run.start
        first = True
        while first or self._options.loop:
            whole = (offset.file, offset.line) == (0, 0)
            before = offset
            async with aclosing(run.reader.read(offset, report=first)) as batches:
                async for batch in batches:
                    offset = batch[-1].offset
                    yield batch
            nothing = offset.played == before.played if self._options.loop else offset == before
            if whole and nothing:
                raise self._nothing_to_play()
            offset = offset.next_pass(_SEAM_MS)
            first = False

    async def _paced(
        self, recorded: AsyncIterator[list[Item]], rewrite: Rewrite | None
    ) -> AsyncGenerator[Sequence[Item], None]:
        """Yield each item when it is due, rewritten."""
        clock = self._clock
        if not self._options.is_paced:
            async for batch in recorded:
                yield _rewritten(batch, rewrite, clock)
            return
        pace = RecordingPace(self._options.speed, self._options.max_gap_s)
        start_s: float | None = None
        async for batch in recorded:
            start_s = clock.now_s() if start_s is None else start_s
            due_s = [_due_s(item, pace) for item in batch]
            done = 0
            while done < len(batch):
                await clock.wait_until(start_s + due_s[done])
                end = bisect_right(due_s, clock.now_s() - start_s, lo=done + 1)
                yield _rewritten(batch[done:end], rewrite, clock)
                done = end

    def _progress_bar(self, recordings: Sequence[Recording], stack: ExitStack) -> "ProgressBar | None":
        if not self._context.interactive or not recordings:
            return None
        from backends.file.progress import ProgressBar

        total = sum(recording.size for recording in recordings)
        return stack.enter_context(ProgressBar(Path(self._options.path).name, total))

    def _nothing_to_play(self) -> SourceError:
        options = self._options
        where = "standard input" if options.is_stdin else f"recording '{options.path}'"
        if options.games or options.from_ or options.to:
            return SourceError(f"{where} has no round that matches the options games, from and to")
        return SourceError(f"{where} has no rounds")


def _due_s(item: Item, pace: RecordingPace) -> float:
    if isinstance(item, Rejected):
        return pace.reached_s  # with the round before it
    return pace.due_s(item.round.timestamp + item.offset.pass_.shift_ms)


def _rewritten(batch: list[Item], rewrite: Rewrite | None, clock: Clock) -> list[Item]:
    if rewrite is None:
        return batch
    now_ms = clock.wall_ms()
    return [
        item if isinstance(item, Rejected) else Captured(rewrite(item.round, item.offset, now_ms), item.offset)
        for item in batch
    ]


def _check_not_among(recordings: Sequence[Recording], path: Path | None, option: str) -> None:
    if path is not None and any(path.resolve() == recording.path.resolve() for recording in recordings):
        raise SourceError(f"{option} '{path}' is one of the recordings; name another file")
