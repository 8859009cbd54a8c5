"""Read the frames of a WebSocket client: bytes in, whole messages out. Pure.

`websockets` parses the frames (RFC 6455 section 5) and inflates them (RFC 7692). Owns what it leaves to its caller: the
order of fragments, the size of a whole message, and the close code of each error. What is written to clients is in
`relay.live.encode`. Why: docs/adr/0013-websockets-reads-client-frames.md
"""

import zlib
from collections.abc import Generator, Iterator, Sequence
from math import inf
from typing import Final, NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CTRL_OPCODES, Close, Frame, Opcode

_CONTROL_BYTES: Final = 125
"""The largest payload of a control frame (RFC 6455 section 5.5)."""
_WINDOW_BITS: Final = 15
"""An inflater with the largest window reads messages of any window."""


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: Opcode
    data: bytes  # of a text: valid UTF-8; of a close: its code in two bytes, then the reason; or nothing


class FrameError(Exception):
    """The client broke the protocol; the connection is to be closed with `code`."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code, self.sentence = code, sentence


class TooManyFrames(Exception):
    """The client sent more frames than it may."""


class FrameReader:
    """Reads the frames of one client, in pieces of any size.

    Bounded: holds at most one message of the largest size, and the bytes that were fed last. Between messages it holds
    neither a parser nor an inflater: every idle client answers pings, so every idle link would keep them.
    """

    __slots__ = ("_deflate", "_extensions", "_fragments", "_max_size", "_opcode", "_parser", "_unread", "frames")

    def __init__(self, *, max_size: int, deflate: bool) -> None:
        """`max_size`: bytes of the largest message, inflated; `deflate`: permessage-deflate was agreed on."""
        self.frames: float = inf
        """How many more frames of any kind may come, each fragment counted; the caller sets it, reading counts down."""
        self._max_size = max_size
        self._deflate = deflate
        self._unread = bytearray()
        self._parser: Generator[None, None, Frame] | None = None  # of the frame that has begun to arrive
        self._extensions: Sequence[PerMessageDeflate] = ()  # of the message that has begun to arrive
        self._opcode: Opcode | None = None  # of that message, when its first fragment has arrived
        self._fragments = b""

    @property
    def unread(self) -> int:
        """Bytes that were fed and not parsed: of frames that are not whole, or that the caller has not asked for."""
        return len(self._unread)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes; yield the messages that they complete.

        Frames are parsed as the caller asks for messages: a caller that stops asking stops the work.

        Raises:
            TooManyFrames: More frames came than `frames` allowed.
            FrameError: The client broke the protocol. What it has sent so far is dropped, so that the close frame that
                it sends in answer can be read.
        """
        self._unread += data
        try:
            while (frame := self._frame()) is not None:  # each frame once: also fragments, pings and pongs
                self.frames -= 1
                if self.frames < 0:
                    raise TooManyFrames
                if (message := self._take(frame)) is not None:
                    yield message
        except FrameError:
            self._unread.clear()
            self._parser, self._opcode, self._fragments = None, None, b""
            raise

    def _frame(self) -> Frame | None:
        """Parse one frame; return None until it is whole."""
        if self._parser is None:
            if not self._unread:
                return None
            self._parser = self._parse()
        try:
            next(self._parser)
        except StopIteration as end:
            self._parser = None
            frame: Frame = end.value
            return frame
        except PayloadTooBig as error:
            raise self._too_large() from error
        except ProtocolError as error:
            if isinstance(error.__cause__, zlib.error):
                raise FrameError(1007, "message that is not deflated") from error
            raise FrameError(1002, str(error)) from error
        return None

    def _parse(self) -> Generator[None, None, Frame]:
        if self._opcode is None:
            # One inflater per message: the client agreed on client_no_context_takeover.
            self._extensions = (PerMessageDeflate(True, True, _WINDOW_BITS, _WINDOW_BITS),) if self._deflate else ()
        # One limit holds for every kind of frame, and a control frame may come when the message is full: see _take.
        limit = self._max_size - len(self._fragments) + _CONTROL_BYTES
        return Frame.parse(self._exactly, mask=True, max_size=limit, extensions=self._extensions)

    def _exactly(self, size: int) -> Generator[None, None, bytes]:
        while len(self._unread) < size:
            yield
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def _take(self, frame: Frame) -> Message | None:
        """Add a frame to its message; return the message when it is complete."""
        data = bytes(frame.data)
        if frame.opcode in CTRL_OPCODES:
            if self._opcode is None:
                self._extensions = ()
            if frame.opcode is Opcode.CLOSE:
                _check_close(data)
            return Message(frame.opcode, data)
        if (frame.opcode is Opcode.CONT) != (self._opcode is not None):
            raise FrameError(1002, "message within a message, or continuation without a beginning")
        opcode = frame.opcode if self._opcode is None else self._opcode
        data = self._fragments + data
        if len(data) > self._max_size:
            raise self._too_large()
        if not frame.fin:
            self._opcode, self._fragments = opcode, data
            return None
        self._opcode, self._fragments, self._extensions = None, b"", ()
        if opcode is Opcode.TEXT:
            _check_text(data)
        return Message(opcode, data)

    def _too_large(self) -> FrameError:
        return FrameError(1009, f"message of more than {self._max_size} bytes")


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise FrameError(1007, "text that is not UTF-8") from error


def _check_close(data: bytes) -> None:
    """Check a close frame (RFC 6455 sections 5.5.1 and 7.4)."""
    try:
        Close.parse(data)
    except ProtocolError as error:
        raise FrameError(1002, str(error)) from error
    except UnicodeDecodeError as error:
        raise FrameError(1007, "close reason that is not UTF-8") from error
