"""Write stored rounds in a wire form, many at a time: what a replay sends of a page that nobody else needs.

Owns the same bytes as `relay.live.item.Item` has of each round, without an item, at less than half the cost: checks of
what rounds have in common are cached, and what is written of all rounds together is joined once. Unusual rounds, and
forms that this module does not know, are written by the general functions. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from relay.live.compression.checksum import Checksum, checksum_of
from relay.live.compression.shared_stream import WindowedForm
from relay.live.encode import Form, SseBlock, WebSocketText, frame
from roundlog.entry import LogEntry
from rounds import Round
from rounds.cursor import cursor_prefix, cursor_text
from rounds.round import read_stored, with_cursor

_SHORT_FRAME: Final = 126
_HEADS: Final = [frame(bytes(size))[: 2 if size < _SHORT_FRAME else 4] for size in range(1024)]
"""What precedes the payload of a text frame, by the payload's size."""


class Written(NamedTuple):
    """Several rounds as one write."""

    data: Any  # as the form's `join` makes it
    rounds: int
    size: int  # in bytes, without compression
    checksum: Checksum | None = None  # of what was compressed, where the form needs it


@runtime_checkable
class RendersStored(Protocol):
    """A form that renders many stored rounds faster than one by one."""

    def render_stored(self, epoch: str, entries: Sequence[LogEntry]) -> list[bytes]:
        """Render each as `Form.render` does; raise `InvalidRound` for any of them."""
        ...


def joined(form: Form, rendered: list[bytes]) -> Written:
    """Make one write of rounds that were rendered, which a client reads whatever it has read before."""
    data = form.join(rendered)
    if not isinstance(form, WindowedForm):
        return Written(data, len(rendered), len(data))
    checksum = checksum_of(b"".join(rendered)) if form.has_checksum else None
    return Written(data, len(rendered), form.plain_bytes(rendered), checksum)


def written(form: Form, epoch: str, entries: Sequence[LogEntry]) -> Written:
    """Write rounds as one would write the items of all of them.

    Raises:
        InvalidRound: Any of them is not valid. Nothing was written.
    """
    join = _JOINED.get(type(form).render)
    if join is not None:
        data = join(form, epoch, entries)
        return Written(data, len(entries), len(data))
    if isinstance(form, RendersStored):
        return joined(form, form.render_stored(epoch, entries))
    return joined(form, [form.render(stored) for stored in _stored(epoch, entries)])


class _Stored:
    """One round after the other, as forms want them: see `relay.live.encode.Renderable`."""

    __slots__ = ("cursor", "round")

    cursor: str
    round: Round

    @property
    def json(self) -> bytes:
        return with_cursor(self.round.to_json(), self.cursor)


def _stored(epoch: str, entries: Sequence[LogEntry]) -> Iterable[_Stored]:
    stored = _Stored()
    for entry, round_ in zip(entries, read_stored(entries), strict=True):
        stored.round, stored.cursor = round_, cursor_text(epoch, entry.sequence)
        yield stored


def _frames(_form: WebSocketText, epoch: str, entries: Sequence[LogEntry]) -> bytes:
    parts: list[bytes] = []
    add, heads, most = parts.append, _HEADS, len(_HEADS)
    member = b',"cursor":"%b' % cursor_prefix(epoch).encode()
    for entry, round_ in zip(entries, read_stored(entries), strict=True):
        tail = b'%b%d"}' % (member, entry[0])
        body = round_.to_json()
        size = len(body) + len(tail) - 1
        if size < most:
            add(heads[size])
            add(body[:-1])
            add(tail)
        else:
            add(frame(body[:-1] + tail))
    return b"".join(parts)


def _blocks(form: SseBlock, epoch: str, entries: Sequence[LogEntry]) -> bytes:
    parts: list[bytes] = []
    add, prefix = parts.append, cursor_prefix(epoch).encode()
    for entry, round_ in zip(entries, read_stored(entries), strict=True):
        cursor = b"%b%d" % (prefix, entry[0])
        body = round_.to_json()
        if form.chunked:
            add(b"%x\r\nid: %b\ndata: " % (len(body) + 2 * len(cursor) + 25, cursor))
            add(body[:-1])
            add(b',"cursor":"%b"}\n\n\r\n' % cursor)
        else:
            add(b"id: %b\ndata: " % cursor)
            add(body[:-1])
            add(b',"cursor":"%b"}\n\n' % cursor)
    return b"".join(parts)


_JOINED: Final[dict[Callable[..., bytes], Callable[[Any, str, Sequence[LogEntry]], bytes]]] = {
    WebSocketText.render: _frames,
    SseBlock.render: _blocks,
}
"""By what renders one round: what joins all of them from parts, without the bytes of each."""
