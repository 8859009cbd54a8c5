"""Finds the filters that a round may match among thousands, by what they have in common. Pure.

Owns no rule of matching: `rounds.filter.Filter.matches` has still to be asked of what it finds, and is False of all
others. Bounds are sorted, colors and trends are looked up.
"""

import math
from collections.abc import Hashable
from decimal import Decimal
from typing import Final, Generic, TypeVar

from relay.live.matching.sorted_members import SortedMembers
from relay.live.members import Members
from rounds import Filter
from rounds.filter import Facts

_T = TypeVar("_T", bound=Hashable)

_MOST_PLACES: Final = 8
"""Places of one filter in the index. One with more colors and trends is found by its bounds alone."""

_WIDEST: Final = 1024
"""The exponent of the width of a band that no float is above."""
_NONE: Final = -2000
"""That of a band of one number: two to this power is zero as a float."""

_Place = tuple[str | None, str | None]
"""A color and a trend; None: of filters for which it may be any."""


class FilterIndex(Generic[_T]):
    """Objects with a filter each. Adding and removing cost little however many there are, and however different."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[_Place, _Bounds[_T]] = {}

    def add(self, filter_: Filter, member: _T) -> None:
        """Add an object that is not there."""
        for place in _places_of(filter_):
            bounds = self._places.get(place)
            if bounds is None:
                bounds = self._places[place] = _Bounds()
            bounds.add(filter_, member)

    def discard(self, filter_: Filter, member: _T) -> None:
        """Remove an object that was added with this filter."""
        for place in _places_of(filter_):
            bounds = self._places[place]
            bounds.discard(filter_, member)
            if not bounds:
                del self._places[place]

    def candidates(self, facts: Facts) -> list[_T]:
        """Return the objects whose filter may match, each once: all that do, and few others."""
        found: list[_T] = []
        places, point = self._places, None if facts.point is None else float(facts.point)
        for color in (None,) if facts.color is None else (None, facts.color):
            for trend in (None,) if facts.trend is None else (None, facts.trend):
                if (bounds := places.get((color, trend))) is not None:
                    found += bounds.around(point)
        return found


class _Bounds(Generic[_T]):
    """Objects by the bounds of their filters, as floats. Rounding keeps the order, so what is between stays between."""

    __slots__ = ("_any", "_bands", "_from", "_size", "_up_to")

    def __init__(self) -> None:
        self._size = 0
        self._any: Members[_T] = Members()  # without a bound
        self._from: SortedMembers[_T] = SortedMembers()  # with a lower bound alone, by it
        self._up_to: SortedMembers[_T] = SortedMembers()  # with an upper bound alone, by it
        # With both, by the lower one; those of about the same width together: of these, those around a number begin
        # within one width below it. The key is the least power of two, as an exponent, that is above the width.
        self._bands: dict[int, SortedMembers[_T]] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, filter_: Filter, member: _T) -> None:
        self._size += 1
        low, high = filter_.min_point, filter_.max_point
        if low is not None and high is not None:
            self._bands.setdefault(_width(low, high), SortedMembers()).add(float(low), member)
        elif low is not None:
            self._from.add(float(low), member)
        elif high is not None:
            self._up_to.add(float(high), member)
        else:
            self._any.add(member)

    def discard(self, filter_: Filter, member: _T) -> None:
        self._size -= 1
        low, high = filter_.min_point, filter_.max_point
        if low is not None and high is not None:
            band = self._bands[width := _width(low, high)]
            band.discard(member)
            if not band:
                del self._bands[width]
        elif low is not None:
            self._from.discard(member)
        elif high is not None:
            self._up_to.discard(member)
        else:
            self._any.discard(member)

    def around(self, point: float | None) -> list[_T]:
        """Return those whose bounds may be around a number; None: those without bounds."""
        found = list(self._any)
        if point is not None:
            if self._from:
                found += self._from.between(-math.inf, point)
            if self._up_to:
                found += self._up_to.between(point, math.inf)
            for width, band in self._bands.items():
                found += band.between(_begin(point, width), point)
        return found


def _places_of(filter_: Filter) -> list[_Place]:
    colors: list[str | None] = [*filter_.colors] or [None]
    trends: list[str | None] = [*filter_.trends] or [None]
    if len(colors) * len(trends) > _MOST_PLACES:
        trends = [None]
    if len(colors) > _MOST_PLACES:
        colors = [None]
    return [(color, trend) for color in colors for trend in trends]


def _width(low: Decimal, high: Decimal) -> int:
    """Return the exponent of the least power of two above the width."""
    width = float(high) - float(low)
    if not math.isfinite(width):
        return _WIDEST
    return math.frexp(width)[1] if width else _NONE


def _begin(point: float, width: int) -> float:
    """Return from where on those of a width may be around a number."""
    return point - math.ldexp(1.0, width) if width < _WIDEST else -math.inf
