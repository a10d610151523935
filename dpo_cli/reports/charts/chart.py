"""What a chart shows, as plain values: the same for SVG and PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

POINTS = 300
"""Of a line on a page; longer ones are shown as means, which no screen tells apart."""
TICKS = 6

Range = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line, or dots of their own; values that are not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    ends: Sequence[Range | None] = ()
    """Interval of each point: a band around a line, whiskers on dots; empty where there are none."""
    kind: Literal["line", "dots"] = "line"


@dataclass(frozen=True)
class Chart:
    """Lines and dots over two axes."""

    title: str
    x_name: str
    y_name: str
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = ()
    """Values of y that are worth a line across, and what they are."""
    has_diagonal: bool = False
    """Whether y = x is drawn: what a calibrated model would show."""
    y_range: Range | None = None
    """None: what the values take."""
    x_range: Range | None = None
    """None: what the points take; pictures side by side share one."""


@dataclass(frozen=True)
class Row:
    """A figure with its interval, on a line of its own."""

    name: str
    value: float
    ends: Range | None = None
    is_hollow: bool = False
    """Whether it is shown as one that says nothing; `x_name` says what that means."""


@dataclass(frozen=True)
class Intervals:
    """Figures with their intervals below each other, on one axis."""

    title: str
    x_name: str
    rows: Sequence[Row]
    levels: Sequence[tuple[float, str]] = ()
    """Values of x that are worth a line down, and what they are."""
    spec: str = ".3f"
    """Format of the figures."""


Picture = Chart | Intervals


def thinned(series: Series, most: int = POINTS) -> Series:
    """Return a line with at most so many points, each the mean of as many neighbours; dots stay as they are."""
    n = len(series.x)
    if n <= most or series.kind == "dots":
        return series
    assert not series.ends, "only lines without intervals are thinned"
    cuts = [round(k * n / most) for k in range(most + 1)]
    parts = [slice(low, high) for low, high in pairwise(cuts)]
    x, y = ([_mean(values[part]) for part in parts] for values in (series.x, series.y))
    return replace(series, x=x, y=y)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Return round values within a range, at most `most` + 1 of them: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def label(value: float) -> str:
    """Write a tick: `0.25`, `1,500`, `5e-7`."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")


def finite(values: Sequence[float]) -> list[float]:
    """Return the values that can be drawn."""
    return [value for value in values if math.isfinite(value)]


def padded(values: Sequence[float], share: float = 0.05) -> Range:
    """Return a range that holds the values with some room; one around a single value."""
    known = finite(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    room = share * (high - low) if high > low else abs(high) * 0.1 or 1.0
    return low - room, high + room


def x_range(chart: Chart) -> Range:
    """Return what the x axis spans: the points, without room left and right of a line."""
    if chart.x_range is not None:
        return chart.x_range
    known = finite([x for each in chart.series for x in each.x]) or [0.0, 1.0]
    low, high = min(known), max(known)
    if chart.has_diagonal:
        return min(low, 0.5), max(high, 1.0)
    has_dots = all(each.kind == "dots" for each in chart.series)
    return padded(known, 0.06 if has_dots else 0.0) if high > low else (low - 1, high + 1)


def y_range(chart: Chart) -> Range:
    """Return what the y axis spans: the points, their intervals and the levels."""
    if chart.y_range is not None:
        return chart.y_range
    points = [y for each in chart.series for y in each.y]
    points += [end for each in chart.series for ends in each.ends if ends for end in ends]
    return padded([*points, *(value for value, _ in chart.levels)])


def interval_range(picture: Intervals) -> Range:
    """Return what the axis spans: figures, intervals and levels."""
    values = [row.value for row in picture.rows] + [value for value, _ in picture.levels]
    return padded([*values, *(end for row in picture.rows if row.ends for end in row.ends)], 0.08)
