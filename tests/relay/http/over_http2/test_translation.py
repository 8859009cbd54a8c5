"""Requests of HTTP/2 as heads of HTTP/1.1, and answers of HTTP/1.1 as parts: pure."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.http.over_http2.http1_answer import AnswerBody, AnswerHead, Http1Answer
from relay.http.over_http2.http1_request import Http1Request, NotHttp1

GET: Final = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b=c"), (b":authority", b"relay:80"))
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\n"


def head_of(*fields: tuple[bytes, bytes], has_body: bool = False) -> list[bytes]:
    return Http1Request.of((*GET, *fields), has_body=has_body).head.split(b"\r\n")


def test_request_without_a_body() -> None:
    """Its host is the authority; fields keep their order."""
    assert head_of((b"x-api-key", b"k"), (b"accept", b"*/*")) == [
        b"GET /a?b=c HTTP/1.1",
        b"host: relay:80",
        b"x-api-key: k",
        b"accept: */*",
        b"",
        b"",
    ]


def test_fields_of_a_connection_are_dropped_and_cookies_joined() -> None:
    """What another hop has asked for says nothing here; a host beside the authority is not believed."""
    fields = [(name, b"x") for name in (b"te", b"connection", b"keep-alive", b"upgrade", b"host")]
    fields.append((b"expect", b"100-Continue"))

    assert head_of(*fields, (b"cookie", b"a=1"), (b"cookie", b"b=2"))[2:] == [b"cookie: a=1; b=2", b"", b""]


def test_other_expectations_are_refused_as_over_http1() -> None:
    """With 417."""
    assert b"expect: x" in head_of((b"expect", b"x"))


@pytest.mark.parametrize(
    ("fields", "has_body", "is_chunked"),
    [((), True, True), (((b"content-length", b"3"),), True, False), (((b"content-length", b"0"),), False, False)],
)
def test_body(fields: tuple[tuple[bytes, bytes], ...], has_body: bool, is_chunked: bool) -> None:
    """In chunks when its length is not known."""
    request = Http1Request.of((*GET, *fields), has_body=has_body)

    assert request.is_chunked is is_chunked
    assert (b"transfer-encoding: chunked" in request.head) is is_chunked


@pytest.mark.parametrize(
    "wrong",
    [
        {b":path": b"/a HTTP/1.1\r\nx: y"},
        {b":path": b"/a b"},
        {b":path": b""},
        {b":path": b"http://x/"},
        {b":method": b"GET /x"},
        {b":method": b"CONNECT", b":path": b""},
        {b":authority": b"a\r\nx: y"},
        {b"x": b"a\r\nx-api-key: other"},
        {b"x": b"a\nb"},
        {b"x": b"a\0b"},
        {b"x y": b"z"},
        {b"x:": b"z"},
        {b"x\r\ny": b"z"},
        {b"transfer-encoding": b"chunked"},
    ],
)
def test_bytes_that_would_be_another_request(wrong: dict[bytes, bytes]) -> None:
    """They get no head, whatever `h2` has let pass."""
    with pytest.raises(NotHttp1):
        Http1Request.of(tuple({**dict(GET), **wrong}.items()), has_body=True)


def test_head_without_an_authority() -> None:
    """The host is that of the field."""
    request = Http1Request.of((*GET[:3], (b"host", b"relay")), has_body=False)

    assert b"\r\nhost: relay\r\n" in request.head


def read(answer: Http1Answer, pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    heads, body = [], b""
    for piece in pieces:
        for part in answer.read(piece):
            if isinstance(part, AnswerHead):
                heads.append(part)
            else:
                assert isinstance(part, AnswerBody)
                assert part.data
                body += part.data
    [head] = heads
    return [*head.fields], body


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def chunked(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 30), max_size=20))
def test_answer_in_chunks_however_it_is_cut(chunks: list[bytes], sizes: list[int]) -> None:
    """Its body is that of the chunks, and it ends with the last one."""
    answer = Http1Answer(has_body=True)
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(chunks)

    fields, body = read(answer, cut(data, sizes))
    assert fields == [(b":status", b"200"), (b"content-type", b"text/plain")]
    assert body == b"".join(chunks)
    assert not answer.is_over
    assert [*answer.read(b"0\r\n\r\n")] == []
    assert answer.is_over


@given(st.binary(max_size=60), st.lists(st.integers(0, 30), max_size=20))
def test_answer_with_a_length_however_it_is_cut(sent: bytes, sizes: list[int]) -> None:
    """It is over after so many bytes, and not before."""
    answer = Http1Answer(has_body=True)
    data = HEAD + b"Content-Length: %d\r\n\r\n" % len(sent) + sent

    _, body = read(answer, cut(data, sizes))
    assert (body, answer.is_over) == (sent, True)


@pytest.mark.parametrize(
    ("data", "has_body", "is_over", "may_end"),
    [
        (HEAD + b"\r\nrest", True, False, True),
        (HEAD + b"Content-Length: 5\r\n\r\n", False, True, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, True, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", True, True, True),
        (HEAD + b"Content-Length: 5\r\n\r\n123", True, False, False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12", True, False, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", True, True, True),
    ],
)
def test_where_an_answer_ends(data: bytes, has_body: bool, is_over: bool, may_end: bool) -> None:
    """By its head, its status, or the end of the connection; interim answers are skipped."""
    answer = Http1Answer(has_body=has_body)
    read(answer, [data])

    assert (answer.is_over, answer.may_end) == (is_over, may_end)
