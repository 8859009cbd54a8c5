"""Read compressed streams with the decoders of others."""

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader


def read_frames(data: bytes, extensions: list[PerMessageDeflate]) -> list[bytes]:
    """Read the payloads of whole frames, with the parser and the inflater of `websockets`."""
    reader, payloads = StreamReader(), list[bytes]()
    reader.feed_data(data)
    reader.feed_eof()
    while True:
        ended = reader.at_eof()
        with pytest.raises(StopIteration):
            next(ended)
        if not reader.buffer:
            return payloads
        parsing = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=extensions)
        with pytest.raises(StopIteration) as done:
            next(parsing)
        payloads.append(bytes(done.value.value.data))
