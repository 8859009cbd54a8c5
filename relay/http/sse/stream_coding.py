"""Whether an event stream is compressed, by the headers of its request. Pure.

gzip alone: every client that decompresses knows it, blocks of it can be shared by many links, and a decoder gives out
what it has at each flush. Why not others: docs/adr/0047-a-window-that-links-share.md
"""

from collections.abc import Mapping

from relay.http.compress import read_weights


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client prefers gzip to no coding (RFC 9110 section 12.5.3); without the header it gets none."""
    weights = read_weights(accept_encoding)
    rest = weights.get("*", 0.0)
    gzip = max(weights.get("gzip", 0.0), weights.get("x-gzip", 0.0)) if weights.keys() & {"gzip", "x-gzip"} else rest
    return 0 < gzip >= weights.get("identity", 0.0)


def coding_headers(headers: Mapping[str, str], accept_encoding: str, *, gzip: bool) -> dict[str, str]:
    """Return the headers that say how an answer with `headers` is coded, and by what that was chosen."""
    if not accept_encoding:
        return {}
    vary = f"{headers['Vary']}, Accept-Encoding" if "Vary" in headers else "Accept-Encoding"
    return {"Vary": vary} | ({"Content-Encoding": "gzip"} if gzip else {})
