"""The encodings of databases: which codec decodes the bytes of one, and text that has bytes of another. Pure.

The server converts text to UTF-8 for its clients, and fails the query or the stream at the first value that has no
equivalent. So we take the bytes as they are stored, and one value that is not text costs one row.
Reference: https://www.postgresql.org/docs/current/multibyte.html
"""

from collections.abc import Mapping
from typing import Final

RAW: Final = "SQL_ASCII"
"""The ``client_encoding`` with which the server converts nothing."""

UTF_8: Final = "utf-8"

_CODECS: Final[Mapping[str, str]] = {
    "UTF8": UTF_8,
    "SQL_ASCII": UTF_8,  # the server does not know what was stored; clients write UTF-8
    "EUC_CN": "gb2312",
    "EUC_JP": "euc_jp",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_KR": "euc_kr",
    "JOHAB": "johab",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    **{f"ISO_8859_{part}": f"iso8859_{part}" for part in range(5, 9)},
    **{f"LATIN{number}": f"iso8859_{part}" for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), start=1)},
    "WIN866": "cp866",
    "WIN874": "cp874",
    **{f"WIN{page}": f"cp{page}" for page in range(1250, 1259)},
}
"""Python's codec of each ``server_encoding``. Without EUC_TW and MULE_INTERNAL, which Python does not have."""

_NAMES: Final = {codec: name for name, codec in _CODECS.items()}
_SHOWN: Final = 24
"""How many bytes before and after a bad one are shown."""


def codec_of(server_encoding: str) -> str | None:
    """Return the name of the codec for text of a database; None: there is none, so the server has to convert."""
    return _CODECS.get(server_encoding.upper())


def readable(name: bytes, codec: str = UTF_8) -> str:
    r"""Decode a name; bytes that are not text become ``\xff``, so that two names remain different."""
    return name.decode(codec, "backslashreplace")


def readable_name(name: str, codec: str) -> str:
    """Decode a name that was decoded from UTF-8 with ``surrogateescape``, since its codec was not known then."""
    if codec == UTF_8 and name.isprintable():
        return name
    return readable(name.encode(UTF_8, "surrogateescape"), codec)


def why_not_text(error: UnicodeDecodeError, codec: str = UTF_8, *, what: str = "row") -> str:
    """Write why a row, or `what` it is, is rejected: the encoding that its text should have, and the first bad byte."""
    start = error.start
    near = bytes(error.object[max(0, start - _SHOWN) : start + _SHOWN])
    name = "UTF-8" if codec == UTF_8 else _NAMES.get(codec, codec.upper())
    return f"the {what} is not {name}: byte 0x{error.object[start]:02x} in {str(near)[1:]}"
