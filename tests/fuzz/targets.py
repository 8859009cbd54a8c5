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
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl

import jwt
import msgspec
from multidict import CIMultiDict

from auth.credentials import AmbiguousCredential, find_key, find_sse_credential, find_ws_credential
from auth.grants import IDENTITY_PREFIX, Grant
from auth.identity.identity_rules import IdentityRules, InvalidIdentity
from auth.identity.identity_token import checked_identity, read_identity
from auth.identity.key_set import KeySet, MalformedKeySet
from auth.key import InvalidCredential, InvalidKeys, Key, Limits
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import stored
from auth.redact import redact
from auth.revocations import Revocations
from auth.signing.algorithms import ASYMMETRIC, HS256, SharedSecret
from auth.signing.compact import encoded
from auth.stores.stored_json import key_json, key_of_json, revocation_json, revocation_of_json
from auth.tokens import AUDIENCE, ISSUER, InvalidToken, TokenSigner, TokenTooLong
from backends.postgres.replication.protocol.pgoutput import InvalidMessage, decode
from relay.admin.admin_errors import InvalidChange
from relay.admin.key_document import created, document_of, patched
from relay.admission.limits.meters import Meters
from relay.admission.limits.rules import RuleBook
from relay.admission.requested import games_of_type, named_games
from relay.config.sections import LimitSettings
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import BadMessage, BadRequest, NeedsUpgrade, TooLarge, Unsupported
from relay.history.start import Start
from relay.http.tokens.token_request import read_token_request
from relay.http.websocket.frames import FrameError, FrameReader
from relay.http.websocket.handshake import check_upgrade, shake_hands
from relay.http.websocket.websocket_link import read_message
from relay.rpc.connect.json_request import from_json
from relay.rpc.connect.proxy_request import message_in_envelope
from relay.rpc.convert import parse_message, read_filter, read_start
from relay.rpc.methods import STREAMS, UNARY
from rounds import Catalogue, Cursor, Filter, InvalidCursor, InvalidFilter, Round, UnknownGame, UnknownType
from rounds import datastream_pb2 as pb
from rounds.filter import Facts
from rounds.round import InvalidRound

Target = Callable[[bytes], None]

_KINDS: Final = (*STREAMS.values(), *UNARY.values(), pb.ReplayRequest)
_SECRET: Final = "x3Vq8Zt1Lw6Rb9Ny4Kc7Pd2Hs5Mg0Jf8"
_SIGNER: Final = TokenSigner.parse(f"k1:{_SECRET}")
_RING: Final = KeyRing.demo()
_MESSAGE_BYTES: Final = 512
_NOW: Final = 1_800_000_000.0
"""The time at which claims are checked; those of the corpus are of then."""
_RULES: Final = IdentityRules(ISSUER, frozenset({AUDIENCE}), (HS256,), limits_claim="limits")
_PROVIDER: Final = SharedSecret(b"z" * 32)
_CATALOGUE: Final = Catalogue.load()
_BOOK: Final = RuleBook(LimitSettings())
_HERE: Final = Key("k", "private", secrets=(stored(f"sk_live_{'1' * 64}"),))
_PROXIES: Final = TrustedProxies.parse("10.0.0.0/8,fd00::/8,2001:db8::/32")
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


def stored_keys(data: bytes) -> None:
    """A stored key, or a revocation: refused in one sentence without secrets, or written and read again the same."""
    try:
        key = key_of_json("bucket keys", "k", data)
    except InvalidKeys as error:
        _check_sentence(error)
    else:
        assert key_of_json("bucket keys", "k", key_json(key)) == key
        document_of(key)
        KeyRing([key])
        _check_limits(key.limits)
    try:
        revocation = revocation_of_json("bucket keys", data)
    except InvalidKeys as error:
        _check_sentence(error)
    else:
        assert revocation_of_json("bucket keys", revocation_json(revocation)) == revocation
        Revocations([revocation])


def key_changes(data: bytes) -> None:
    """The body of the admin API that makes a key, or changes one: refused in one sentence, or a key that is stored."""
    try:
        members = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for make in (partial(created, {"id": "k"} | members, _HERE.secrets[0], now=_NOW), partial(patched, _HERE, members)):
        try:
            key = make()
        except InvalidChange as error:
            _check_sentence(error)
        else:
            assert key_of_json("bucket keys", key.id, key_json(key)) == key
            document_of(key)
            _check_limits(key.limits)


def token_requests(data: bytes) -> None:
    """The body of a request for a token: refused, or what it asks for is in the token that is made of it."""
    try:
        asked = read_token_request("application/json", data)
        assert 1 <= asked.life_s <= 30
        games = None if asked.games is None else named_games(_CATALOGUE, None, asked.games)
        for name in asked.types or ():
            games = (games or frozenset()) | games_of_type(_CATALOGUE, None, name)
        token, _ = _SIGNER.issue(_HERE, games=games, subject=asked.subject, life_s=asked.life_s)
        found = _SIGNER.verify(token)
        assert (found.games, found.subject) == (games, asked.subject)
    except (BadRequest, UnknownGame, UnknownType, TokenTooLong) as error:
        str(error).encode()  # clients get it


def identity_tokens(data: bytes) -> None:
    """A JWT that the provider has not signed: it is refused, and the sentence does not repeat it."""
    text = _text(data)
    try:
        checked_identity(read_identity(text, _RULES), [_PROVIDER], _RULES, now=_NOW)
    except InvalidIdentity as error:
        assert len(text) < 24 or text not in str(error)  # noqa: PT017
    else:
        raise AssertionError("a JWT was accepted that nobody signed")


def identity_claims(data: bytes) -> None:
    """Claims that the provider has signed: what they grant is in the token that is made of them."""
    signed = encoded(b'{"alg":"HS256","typ":"JWT"}') + b"." + encoded(data)
    token = (signed + b"." + encoded(_PROVIDER.sign(signed))).decode()
    with suppress(InvalidIdentity):
        found = checked_identity(read_identity(token, _RULES), [_PROVIDER], _RULES, now=_NOW)
        _check_limits(found.limits)
        grant = Grant(f"{IDENTITY_PREFIX}0", "private", found.games, frozenset(), found.limits, subject=found.subject)
        with suppress(TokenTooLong):
            given = _SIGNER.verify(_SIGNER.issue_for(grant)[0])
            assert (given.games, given.limits, given.subject) == (found.games, found.limits, found.subject)


def key_sets(data: bytes) -> None:
    """The answer of an identity provider: no key set, or keys that can be asked to verify."""
    with suppress(MalformedKeySet):
        found = KeySet.read(data, ASYMMETRIC)
        for algorithm in ASYMMETRIC:
            for key in found.find(None, algorithm):
                assert not key.verify(b"signed", b"no signature")


def forwarded(data: bytes) -> None:
    """The address of a connection, X-Forwarded-For and Forwarded, one in each line: the result is an address of one of
    them, and of the connection unless that is a trusted proxy's."""
    peer, for_, by = (*_text(data).split("\n", 2), "", "")[:3]
    client = _PROXIES.client(peer, for_, by)
    assert client == peer or str(ip_address(client)) == client
    assert client == peer or _PROXIES.trusts(peer)


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
        stored_keys,
        key_changes,
        token_requests,
        identity_tokens,
        identity_claims,
        key_sets,
        forwarded,
        start,
        client_message,
        log_line,
    )
}


def _check_sentence(error: Exception) -> None:
    """Check an error that operators read."""
    assert _KEY.search(str(error)) is None
    assert "\n" not in str(error)
    str(error).encode()


def _check_limits(limits: Limits) -> None:
    """Limits that were accepted can be applied: the delay that a client gets is a number."""
    rules = _BOOK.of("private", limits)
    for rate in (rules.requests, rules.new_links, rules.resumes, rules.log_rounds, rules.subscribes):
        if rate is not None:
            meters = Meters(2)
            meters.use("k", rate, 0.0)
            assert meters.quota("k", rate, 0.5).reset_s >= 0
            round(meters.wait_s("k", rate, 0.5) * 1000)


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
