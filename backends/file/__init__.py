"""The backend ``file``: replays rounds from recorded files or standard input, at any speed.

For users: docs/file-replay.md. `backend` composes the other modules. Of those, only `recording.reader`,
`recording.sources`, `recording.rejects`, `checkpoint`, `stored_before` and `progress` do I/O.
"""

from backends.file.file_replay import FileReplay

__all__ = ["FileReplay"]
