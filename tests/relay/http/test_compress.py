"""Choice of a content coding: the result for ``Accept-Encoding`` is checked against RFC 9110 section 12.5.3."""

import asyncio
import gzip

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.http import compress
from relay.http.compress import read_weights
from relay.turns import Turns

BODY = b'{"round_id":67890,"game_slug":"crash"}' * 100

spaces = st.sampled_from(["", " ", "\t", "  "])
codings = st.sampled_from(["gzip", "br", "deflate", "zstd", "identity", "*", "x-gzip"])
weights = st.integers(0, 1000).map(lambda thousandths: f"{thousandths / 1000:.3f}") | st.sampled_from(
    ["0", "1", "0.", "1.", "0.5"]
)


def compressed(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    return asyncio.run(compress.compressed(body, accept_encoding, Turns()))


@st.composite
def accept_encodings(draw: st.DrawFn) -> tuple[str, dict[str, float]]:
    """A well-formed header, and the weights that it means."""
    meant = draw(st.dictionaries(codings, st.none() | weights, max_size=5))
    elements = []
    for coding, weight in meant.items():
        text = coding.upper() if draw(st.booleans()) else coding
        if weight is not None:
            text += f"{draw(spaces)};{draw(spaces)}{draw(st.sampled_from('qQ'))}={weight}"
        elements.append(f"{draw(spaces)}{text}{draw(spaces)}")
    elements += [draw(spaces)] * draw(st.integers(0, 2))  # empty elements are allowed, and mean nothing
    return ",".join(elements), {coding: float(weight or 1) for coding, weight in meant.items()}


@given(accept_encodings())
def test_well_formed_header_is_read(wish: tuple[str, dict[str, float]]) -> None:
    """Case, blanks and empty elements do not matter."""
    header, meant = wish

    assert read_weights(header) == meant


@given(accept_encodings())
def test_only_accepted_codings_are_used(wish: tuple[str, dict[str, float]]) -> None:
    """The body can be decoded, and its coding has a weight above 0, by name or by ``*``."""
    header, meant = wish

    body, coding = compressed(BODY, header)

    if coding is None:
        assert body == BODY
    else:
        assert {"gzip": gzip.decompress, "br": brotli.decompress}[coding](body) == BODY
        assert meant.get(coding, meant.get("*", 0)) > 0
        assert len(body) < len(BODY)


@given(accept_encodings())
def test_accepted_coding_is_used(wish: tuple[str, dict[str, float]]) -> None:
    """The one with the greater weight; br when they are equal."""
    header, meant = wish

    _, coding = compressed(BODY, header)

    br, gz = meant.get("br", 0), meant.get("gzip", 0)
    if max(br, gz) > 0:
        assert coding == ("br" if br >= gz else "gzip")


@given(st.text(max_size=60))
def test_any_header_gets_a_readable_answer(header: str) -> None:
    """No header raises an error."""
    body, coding = compressed(BODY, header)

    assert (coding is None) == (body == BODY)


@pytest.mark.parametrize(
    "header", ["gzip;q=2", "gzip;q=-1", "gzip;q=", "gzip;level=9", "gzipped", ";q=1", "gzip;q=0.0001"]
)
def test_malformed_element_is_ignored(header: str) -> None:
    """A client with a malformed header gets an uncompressed body."""
    assert compressed(BODY, header) == (BODY, None)


def test_small_body_is_not_compressed() -> None:
    """Below a kilobyte, compression saves nothing."""
    assert compressed(BODY[:1023], "gzip") == (BODY[:1023], None)
    assert compressed(BODY[:1024], "gzip")[1] == "gzip"


def test_same_body_gives_same_bytes() -> None:
    """The gzip header has no time."""
    assert compressed(BODY, "gzip") == compressed(BODY, "gzip")


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_large_body_is_compressed_in_pieces(coding: str) -> None:
    """Each in a turn that has time for it. Together they are one body, nearly as small as if compressed at once."""
    body = BODY * 50
    packed, _ = compressed(body, coding)

    assert {"gzip": gzip.decompress, "br": brotli.decompress}[coding](packed) == body
    at_once = gzip.compress(body, 4) if coding == "gzip" else brotli.compress(body, quality=4)
    assert len(packed) <= len(at_once) * 1.1
