"""Values inside the JSON document of a column, with every number digit for digit. Pure."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from rounds import InvalidRound

Row: TypeAlias = Sequence[str | None]
"""The values of one row as text, in the order of `TableMapper.columns`; None is NULL."""

_DECODER: Final = msgspec.json.Decoder(float_hook=str)
_ENCODER: Final = msgspec.json.Encoder()


class JsonColumn:
    """A column with JSON documents. Several paths into one document read it once."""

    def __init__(self, name: str, index: int) -> None:
        self._name = name
        self._index = index
        self._text: str | None = None
        self._document: object = None

    def document(self, row: Row) -> object:
        """Return the decoded document of a row; NULL is None. Raises `InvalidRound` when the text is no JSON."""
        text = row[self._index]
        if text is not self._text:
            self._document = None if text is None else read_json(text, self._name)
            self._text = text
        return self._document

    def member(self, members: tuple[str, ...]) -> Callable[[Row], object]:
        """Return a function that reads one value of a row's document; a value that is not there is None.

        Numbers of a list's elements count from 0, as for the operator ``#>>``.
        """

        def read(row: Row) -> object:
            value = self.document(row)
            for name in members:
                if isinstance(value, dict):
                    value = value.get(name)
                elif isinstance(value, list):
                    value = _element(value, name)
                else:
                    return None
            return value

        return read


def read_json(text: str, name: str) -> object:
    """Decode JSON, floats as text; raise `InvalidRound`, which names `name`."""
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRound(f"{name} {text[:40]!r} are not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRound(f"{name} are nested too deeply") from error


def text_of(value: object) -> str | None:
    """Write a value of a document as the operator ``#>>`` does: a string without quotes, null as NULL."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _ENCODER.encode(value).decode()


def _element(values: list[object], name: str) -> object:
    try:
        return values[int(name)] if name.isascii() and len(name) < 10 else None
    except (ValueError, IndexError):
        return None
