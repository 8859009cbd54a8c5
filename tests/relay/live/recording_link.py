"""A link that records what it gets, for tests of the parts around links."""

import asyncio
from collections.abc import Mapping

from relay.live.encode import Form, WebSocketText
from relay.live.link import CloseReason, Disconnect, Link, LinkEnder


class RecordingTransport(asyncio.WriteTransport):
    """Keeps what is written; `unsent` is what a slow client has not read."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unsent = 0
        self.aborted = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted.is_set()

    def abort(self) -> None:
        self.aborted.set()


class NeverEnded:
    """Fails the test that ends a link."""

    def end(self, link: Link, reason: CloseReason) -> None:
        raise AssertionError(f"link {link.id} was ended: {reason}")

    def cut(self, link: Link, reason: CloseReason) -> None:
        raise AssertionError(f"link {link.id} was cut: {reason}")


async def takes_everything() -> None:
    """A recorder is never full."""


class RecordingLink(Link):
    """Keeps its disconnects and events."""

    def __init__(self, form: Form | None = None, *, ender: LinkEnder | None = None) -> None:
        self.recorder = RecordingTransport()
        self.disconnects: list[Disconnect] = []
        self.events: list[dict[str, object]] = []
        super().__init__(
            self.recorder, form or WebSocketText(), ender or NeverEnded(), max_age_s=60, drain=takes_everything
        )

    def heartbeat(self) -> bool:
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        self.events.append(dict(event))

    def write_disconnect(self, disconnect: Disconnect) -> None:
        self.disconnects.append(disconnect)
