"""Bytes of a body that many streams get: framed once, whatever the number of streams.

Nearly all clients of a long stream have it as stream 1 of a connection of their own: they share one bytes object,
with the header of its frame. Knows nothing of flow control.
"""

from typing import Final

from relay.http2.http2_frames import data_frames

_KEPT: Final = 8
"""Stream ids whose frames are kept. A connection with many streams has each id once: keeping those would only cost."""


class DataBatch:
    """Bytes for a body, made once for all streams that get them. `size` is their length, which flow control counts."""

    __slots__ = ("_frames", "first", "payload", "size")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.size = len(payload)
        self.first = data_frames(1, payload)
        """The frames for stream 1."""
        self._frames: dict[int, bytes] | None = None

    def __len__(self) -> int:
        return self.size

    def frames(self, stream_id: int) -> bytes:
        """Return the bytes as DATA frames of one stream, each short enough for every peer."""
        if stream_id == 1:
            return self.first
        kept = self._frames
        if kept is None:
            kept = self._frames = {}
        found = kept.get(stream_id)
        if found is None:
            found = data_frames(stream_id, self.payload)
            if len(kept) < _KEPT:
                kept[stream_id] = found
        return found
