"""The backend ``file``: replays rounds from recorded files or standard input, at any speed.

For users: docs/file-replay.md. `file_replay` composes the other modules. Of those, only
`recording.recording_reader`, `recording.sources`, `recording.rejects_file`, `checkpoint`, `stored_before` and
`progress` do I/O.
"""

from backends.file.file_replay import FileReplay

__all__ = ["FileReplay"]
