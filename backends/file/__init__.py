"""The backend ``file``: rounds from recorded files or standard input, at their own pace or any other.

For users: docs/file-replay.md. `replay` composes the other modules; of those, only `sources`, `checkpoint`, `rejects`
and `progress` touch anything outside the process.
"""

from backends.file.backend import FileReplay

__all__ = ["FileReplay"]
