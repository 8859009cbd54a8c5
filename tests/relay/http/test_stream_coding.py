"""Which event streams are compressed, by the ``Accept-Encoding`` of their request."""

import pytest

from relay.http.sse.stream_coding import accepts_gzip, coding_headers


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br, zstd, deflate", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0, x-gzip", True),
        ("*", True),
        ("*;q=0", False),
        ("br, *;q=0.5", True),
        ("identity", False),
        ("identity;q=0", False),  # nothing else is acceptable that this relay has: it is sent as it is
        ("identity;q=0, gzip;q=0.1", True),
        ("identity, gzip;q=0.9", False),
        ("identity;q=0.5, gzip", True),
        ("gzip;q=1.5", False),
        ("gzip;q=", False),
    ],
)
def test_coding_that_the_client_prefers(accept_encoding: str, gzip: bool) -> None:
    """RFC 9110 section 12.5.3."""
    assert accepts_gzip(accept_encoding) == gzip


def test_headers_say_what_the_coding_depends_on() -> None:
    """`Vary` keeps what it has; clients that send no ``Accept-Encoding`` are answered as before."""
    assert coding_headers({"Vary": "Origin"}, "gzip", gzip=True) == {
        "Vary": "Origin, Accept-Encoding",
        "Content-Encoding": "gzip",
    }
    assert coding_headers({}, "br", gzip=False) == {"Vary": "Accept-Encoding"}
    assert coding_headers({"Vary": "Origin"}, "", gzip=False) == {}
