"""Which rounds of its games a client wants: by point, color or trend.

Pure. A filter is a hashable value, so that the hub runs it once per round however many clients share it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Self

import msgspec

_NUMBER: Final = re.compile(r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\Z", re.IGNORECASE | re.ASCII)
"""A decimal number and nothing else: Python's own reading takes underscores, spaces and the digits of any script."""

_VALUES: Final = 100
"""The most colors, or trends, of one filter: games have a handful. A list of 64 kB would take 30 ms to read."""

PARAMETERS: Final = ("min_point", "max_point", "colors", "trends")


class InvalidFilter(ValueError):
    """A filter parameter is invalid. Clients get 400; the text names it, its value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What filters look at in a round, read from its extras once."""

    point: Decimal | None = None
    color: str | None = None
    trend: str | None = None

    @classmethod
    def of(cls, extras: str) -> Self:
        """Read the facts of a round's extras. What is absent or of an unexpected kind is None and matches no filter."""
        try:
            raw = _decoder.decode(extras)
        except msgspec.MsgspecError:
            return cls()
        return cls(_decimal(raw.point), _text(raw.color), _text(raw.trend))


_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Filter:
    """All criteria given must hold; within ``colors`` or ``trends`` one match is enough.

    Bounds are inclusive. A round without the field that a criterion looks at does not match.
    """

    min_point: Decimal | None = None
    max_point: Decimal | None = None
    colors: frozenset[str] = _NONE
    trends: frozenset[str] = _NONE

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """Read a filter from query parameters; ``colors`` and ``trends`` are comma-separated. Other names are ignored.

        Raises:
            InvalidFilter: A bound is no finite decimal, ``min_point`` is above ``max_point``, a list has holes, or has
                more than 100 values.
        """
        return cls.build(
            min_point=parameters.get("min_point"),
            max_point=parameters.get("max_point"),
            colors=_split(parameters, "colors"),
            trends=_split(parameters, "trends"),
        )

    @classmethod
    def build(
        cls,
        *,
        min_point: str | None = None,
        max_point: str | None = None,
        colors: Iterable[str] = (),
        trends: Iterable[str] = (),
    ) -> Self:
        """Build a filter from values of any protocol; raise `InvalidFilter` as `parse` does."""
        low, high = _bound("min_point", min_point), _bound("max_point", max_point)
        if low is not None and high is not None and low > high:
            raise InvalidFilter(f"min_point {min_point} is above max_point {max_point}; it must not be")
        return cls(low, high, _listed("colors", colors), _listed("trends", trends))

    def __hash__(self) -> int:
        """Hash the numbers as text: clients could choose numbers that have the same hash, and slow every lookup."""
        return hash((_hashable(self.min_point), _hashable(self.max_point), self.colors, self.trends))

    @property
    def is_empty(self) -> bool:
        """True when every round matches."""
        return self.min_point is None and self.max_point is None and not self.colors and not self.trends

    def matches(self, facts: Facts) -> bool:
        if self.min_point is not None and (facts.point is None or facts.point < self.min_point):
            return False
        if self.max_point is not None and (facts.point is None or facts.point > self.max_point):
            return False
        if self.colors and facts.color not in self.colors:
            return False
        return not (self.trends and facts.trend not in self.trends)


class _Extras(msgspec.Struct):
    point: msgspec.Raw = msgspec.Raw()
    color: msgspec.Raw = msgspec.Raw()
    trend: msgspec.Raw = msgspec.Raw()


_decoder: Final = msgspec.json.Decoder(_Extras)
_value_decoder: Final = msgspec.json.Decoder(str | int | float | None, float_hook=Decimal)


def _value(raw: msgspec.Raw) -> object:
    if not raw:
        return None
    try:
        return _value_decoder.decode(raw)
    except msgspec.MsgspecError:
        return None  # an object, a list, a boolean: not what filters look at


def _text(raw: msgspec.Raw) -> str | None:
    value = _value(raw)
    return value if isinstance(value, str) else None


def _decimal(raw: msgspec.Raw) -> Decimal | None:
    value = _value(raw)
    return None if value is None else _finite(str(value))


def _finite(text: str) -> Decimal | None:
    if _NUMBER.match(text) is None:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of more digits than anything can have
        return None
    return number if number.is_finite() else None


def _hashable(number: Decimal | None) -> bytes | None:
    """Return the same bytes for equal numbers; Python's hash of bytes is different in every process."""
    if not number:
        return None if number is None else b"0"
    sign, digits, exponent = number.as_tuple()
    significant = bytes(digits).rstrip(b"\0")
    return b"%d %d %b" % (sign, int(exponent) + len(digits) - len(significant), significant)


def _bound(name: str, text: str | None) -> Decimal | None:
    if text is None:
        return None
    number = _finite(text) if len(text) <= 40 else None
    if number is None:
        raise InvalidFilter(f"{name} {text[:40]!r} is not a decimal number, such as 2.50")
    return number


def _listed(name: str, values: Iterable[str]) -> frozenset[str]:
    listed = frozenset(values) or _NONE
    if len(listed) > _VALUES:
        raise InvalidFilter(f"{name} holds {len(listed)} values; {_VALUES} is the limit")
    return listed


def _split(parameters: Mapping[str, str], name: str) -> list[str]:
    text = parameters.get(name)
    if text is None:
        return []
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise InvalidFilter(
            f"{name} {text[:40]!r} holds an empty value; separate values with commas, such as red,black"
        )
    return values
