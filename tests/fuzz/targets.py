"""What is fuzzed: one function for each parser of untrusted bytes.

Each takes any bytes. It returns when the parser accepts them or refuses them with its own error, and raises when the
parser fails in another way, or when what it accepted does not keep its promise. Needs no fuzzing engine: the suite
runs the corpus through the same functions.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

import jwt
from multidict import CIMultiDict

from auth.credentials import AmbiguousCredential, find_key, find_sse_credential, find_ws_credential
from auth.key import InvalidCredential, InvalidKeys
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.redact import redact
from auth.tokens import AUDIENCE, ISSUER, InvalidToken, TokenSigner
from backends.postgres.replication.protocol.pgoutput import InvalidMessage, decode
from relay.errors import BadMessage, BadRequest, NeedsUpgrade, TooLarge, Unsupported
from relay.history.start import Start
from relay.http.websocket.frames import FrameError, FrameReader
from relay.http.websocket.handshake import check_upgrade, shake_hands
from relay.http.websocket.websocket_link import read_message
from relay.rpc.connect.json_request import from_json
from relay.rpc.connect.proxy_request import message_in_envelope
from relay.rpc.convert import parse_message, read_filter, read_start
from relay.rpc.methods import STREAMS, UNARY
from rounds import Cursor, Filter, InvalidCursor, InvalidFilter, Round
from rounds import datastream_pb2 as pb
from rounds.filter import Facts
from rounds.round import InvalidRound

Target = Callable[[bytes], None]

_KINDS: Final = (*STREAMS.values(), *UNARY.values(), pb.ReplayRequest)
_SECRET: Final = "x3Vq8Zt1Lw6Rb9Ny4Kc7Pd2Hs5Mg0Jf8"
_SIGNER: Final = TokenSigner.parse(f"k1:{_SECRET}")
_RING: Final = KeyRing.demo()
_MESSAGE_BYTES: Final = 512
_KEY: Final = re.compile(r"[sp]k_(?:live|test)_\w", re.ASCII)


def pgoutput(data: bytes) -> None:
    """A message of the output plugin: a row's values are parts of the message."""
    with suppress(InvalidMessage):
        decode(data)


def cursor(data: bytes) -> None:
    """A cursor that is accepted is written as it was read."""
    text = _text(data)
    with suppress(InvalidCursor):
        assert str(Cursor.parse(text)) == text


def filters(data: bytes) -> None:
    """A query, a blank line, and the extras of a round: equal filters are equal keys, and matching never fails."""
    query, _, extras = data.partition(b"\n")
    facts = Facts.of(extras.decode(errors="replace"))  # a round's text is valid
    with suppress(InvalidFilter):
        one, other = Filter.parse(_query(_text(query))), Filter.parse(_query(_text(query)))
        assert hash(one) == hash(other)
        assert one == other
        assert one.matches(facts) == other.matches(facts)
        assert not one.is_empty or one.matches(facts)


def frames(data: bytes) -> None:
    """Frames of a client: how the bytes are cut into reads changes nothing."""
    if not data:
        return
    cut, deflate = 1 + data[0] % 16, bool(data[0] & 16)
    body = data[1:]
    whole = _read_frames([body], deflate=deflate)
    pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
    assert _read_frames(pieces, deflate=deflate) == whole


def handshake(data: bytes) -> None:
    """Headers of a handshake: the answer has no control characters, so no header can be added to it."""
    headers: CIMultiDict[str] = CIMultiDict(_lines(data))
    with suppress(BadRequest, NeedsUpgrade, AmbiguousCredential):
        check_upgrade(headers)
        presented = find_ws_credential(headers, {})
        answer = shake_hands(headers, subprotocol=None if presented is None else presented.subprotocol)
        assert not any(character in value for value in answer.headers.values() for character in "\r\n\0")


def credentials(data: bytes) -> None:
    """Headers and a query: no place of a credential makes a parser fail, and no text authenticates by chance."""
    first, _, rest = data.partition(b"\n")
    headers, query = CIMultiDict(_lines(rest)), _query(_text(first))
    for find in (partial(find_key, allow_query=True), find_sse_credential):
        with suppress(AmbiguousCredential):
            presented = find(headers, query)
            if presented is not None:
                assert presented.secret.strip()
                with suppress(InvalidCredential):
                    assert _RING.authenticate(presented.secret).id.startswith("demo")


def rounds(data: bytes) -> None:
    """A round as JSON: written and read again, it is the same round, and its extras are JSON."""
    with suppress(InvalidRound):
        parsed = Round.parse(data)
        assert Round.parse(parsed.to_json()) == parsed
        json.loads(parsed.extras)


def proxy_json(data: bytes) -> None:
    """A request of the proxy as JSON, of a kind that the first byte chooses."""
    if not data:
        return
    with suppress(BadRequest, InvalidCursor, InvalidFilter):
        _read_fields(from_json(data[1:], _KINDS[data[0] % len(_KINDS)]))


def proxy_bytes(data: bytes) -> None:
    """A request as protobuf in an envelope, compressed or not: never more than the limit."""
    if not data:
        return
    with suppress(BadRequest, TooLarge, Unsupported, InvalidCursor, InvalidFilter):
        message = message_in_envelope(data[1:], "gzip" if data[0] & 1 else "identity", _MESSAGE_BYTES)
        assert len(message) <= _MESSAGE_BYTES or not data[1] & 1
        _read_fields(parse_message(message, _KINDS[data[0] // 2 % len(_KINDS)]))


def tokens(data: bytes) -> None:
    """A token that was not signed with the secret: it is refused, and the sentence does not repeat it."""
    text = _text(data)
    try:
        _SIGNER.verify(text)
    except InvalidToken as error:
        assert len(text) < 24 or text not in str(error)  # noqa: PT017
    else:
        raise AssertionError("a token was accepted that nobody signed")


def claims(data: bytes) -> None:
    """A payload signed with the right secret: the claims of a stream token, or refused."""
    with suppress(ValueError, TypeError, RecursionError):
        payload = json.loads(data)
        if not isinstance(payload, dict):
            return
        token = jwt.encode({"iss": ISSUER, "aud": AUDIENCE} | payload, _SECRET, "HS256", headers={"kid": "k1"})
        with suppress(InvalidToken):
            _SIGNER.verify(token)


def keys(data: bytes) -> None:
    """Keys in both written forms: refused in one sentence without secrets, or keys with unique ids."""
    line, _, file = _text(data).partition("\0")
    try:
        found = read_keys(text=line, file_text=file)
    except InvalidKeys as error:
        assert _KEY.search(str(error)) is None  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert len({key.id for key in found}) == len(found)
        KeyRing(found)


def start(data: bytes) -> None:
    """The query of a stream, and a Last-Event-ID after a blank line."""
    query, newline, last = _text(data).partition("\n")
    with suppress(BadRequest, InvalidCursor):
        Start.parse(_query(query), last_event_id=last if newline else None)


def client_message(data: bytes) -> None:
    """A message of a WebSocket client, whose frames were valid UTF-8."""
    with suppress(BadMessage, UnicodeDecodeError):
        read_message(data.decode().encode())


def log_line(data: bytes) -> None:
    """Text of a log line: no part of a key is in what is logged."""
    assert _KEY.search(redact(_text(data))) is None


TARGETS: Final[Mapping[str, Target]] = {
    target.__name__: target
    for target in (
        pgoutput,
        cursor,
        filters,
        frames,
        handshake,
        credentials,
        rounds,
        proxy_json,
        proxy_bytes,
        tokens,
        claims,
        keys,
        start,
        client_message,
        log_line,
    )
}


def _text(data: bytes) -> str:
    """Decode as aiohttp does: bytes that are not UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _query(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=None))


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield headers as a server gives them: a name, and a value without line breaks."""
    for line in data.split(b"\n"):
        name, colon, value = _text(line).partition(":")
        if colon and name.strip():
            yield name.strip(), value.strip()


def _read_frames(pieces: list[bytes], *, deflate: bool) -> list[object]:
    reader, seen = FrameReader(max_size=_MESSAGE_BYTES, deflate=deflate), list[object]()
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                assert len(message.data) <= _MESSAGE_BYTES
                seen.append(message)
    except FrameError as error:
        assert len(error.sentence) < 200  # noqa: PT017
        seen.append(error.code)
    return seen


def _read_fields(message: object) -> None:
    """Read what the methods read of a message."""
    if hasattr(message, "filter"):
        read_filter(message.filter)
    if hasattr(message, "start") and hasattr(message, "after"):
        read_start(message.start, message.after)
