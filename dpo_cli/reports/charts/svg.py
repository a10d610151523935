"""Charts as SVG, written by hand: no script, no font, no request. Colours are light ones; a page's style may replace them by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpo_cli.reports.charts.chart import (
    Chart,
    Intervals,
    Picture,
    Range,
    Row,
    Series,
    interval_range,
    label,
    ticks,
    x_range,
    y_range,
)
from dpo_cli.reports.charts.text import escaped, short

COLOURS = ("#0b5fc4", "#c2500a", "#0b7a4b", "#8a3ab9", "#8a6d00", "#b0216b", "#006d77", "#5a5a5a")
"""Of series in order; dark enough for white paper (4.5 to 1), apart for colour-blind readers by the dashes below."""
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 2 1 2", "3 5")
MARKS = (
    "",
    "M{l:.1f} {t:.1f}H{r:.1f}V{b:.1f}H{l:.1f}Z",
    "M{x:.1f} {t:.1f}L{r:.1f} {b:.1f}H{l:.1f}Z",
    "M{x:.1f} {t:.1f}L{r:.1f} {y:.1f}L{x:.1f} {b:.1f}L{l:.1f} {y:.1f}Z",
)
"""Shapes of dots: a circle, a square, a triangle, a diamond."""
WIDTH, PLOT_HEIGHT = 360, 150
LEFT, RIGHT, TITLE, LEGEND, BOTTOM = 46, 10, 24, 16, 36
"""Pixels around the plot."""
ROW = 38
LONG, ABREAST = 15, 44
"""Pixels that a row gets on top, and letters, where figures stand below names because a line does not hold both."""
_FONT = 'font-family="system-ui, -apple-system, Segoe UI, sans-serif"'
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Drawing:
    """A chart's markup and its size in pixels."""

    body: str
    width: float
    height: float


def svg(picture: Picture) -> str:
    """Return one chart as an `<svg>` element that takes the width of what holds it."""
    drawing = _drawn(picture)
    return (
        f'<svg class="chart" viewBox="0 0 {drawing.width:g} {drawing.height:g}" role="img" aria-label="{escaped(picture.title)}" {_FONT}>'
        f"{drawing.body}</svg>"
    )


def document(pictures: Sequence[Picture], columns: int = 2) -> str:
    """Return charts side by side as one SVG file, on white."""
    drawings = [_drawn(picture) for picture in pictures]
    parts, top = [], 0.0
    for at in range(0, len(drawings), columns):
        line = drawings[at : at + columns]
        for k, drawing in enumerate(line):
            parts.append(f'<g transform="translate({k * WIDTH:g} {top:g})">{drawing.body}</g>')
        top += max(drawing.height for drawing in line) + 8
    width = WIDTH * min(columns, max(len(drawings), 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{top:g}" viewBox="0 0 {width:g} {top:g}" {_FONT}>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _drawn(picture: Picture) -> Drawing:
    return _intervals(picture) if isinstance(picture, Intervals) else _chart(picture)


def _chart(chart: Chart) -> Drawing:
    top = TITLE + LEGEND * math.ceil(len(chart.series) / 2) * (len(chart.series) > 1)
    height = top + PLOT_HEIGHT + BOTTOM
    xs, ys = x_range(chart), y_range(chart)
    x, y = _scale(xs, LEFT, WIDTH - RIGHT), _scale(ys, top + PLOT_HEIGHT, top + 4)
    parts = [_title(chart.title, chart.y_name)]
    if len(chart.series) > 1:
        parts += _legend(chart.series)
    for tick in ticks(*ys):
        parts.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid", "#e3e3e3"))
        parts.append(_text(LEFT - 6, y(tick) + 4, label(tick), "soft", 11, anchor="end"))
    for tick in ticks(*xs):
        parts.append(
            _text(x(tick), top + PLOT_HEIGHT + 16, label(tick), "soft", 11, anchor=_anchor(tick, xs))
        )
    parts.append(_line(LEFT, top + PLOT_HEIGHT, WIDTH - RIGHT, top + PLOT_HEIGHT, "axis", "#777777"))
    parts.append(_text(WIDTH - RIGHT, height - 4, chart.x_name, "soft", 11, anchor="end"))
    if chart.has_diagonal:
        low, high = max(xs[0], ys[0]), min(xs[1], ys[1])
        parts.append(_line(x(low), y(low), x(high), y(high), "axis", "#777777", "2 3"))
    for value, name in chart.levels:
        parts.append(_line(LEFT, y(value), WIDTH - RIGHT, y(value), "axis", "#777777", "2 3"))
        parts.append(_text(WIDTH - RIGHT - 2, y(value) - 4, name, "soft", 11, anchor="end"))
    for k, each in enumerate(chart.series):
        parts += _series(each, k % len(COLOURS), x, y, ys)
    return Drawing("".join(parts), WIDTH, height)


def _intervals(picture: Intervals) -> Drawing:
    figures = [_figures(row, picture.spec) for row in picture.rows]
    is_long = any(
        len(row.name) + len(text) > ABREAST for row, text in zip(picture.rows, figures, strict=True)
    )
    tall, top, span = ROW + LONG * is_long, TITLE + 8, interval_range(picture)
    bottom = top + tall * len(picture.rows)
    height = bottom + BOTTOM + 14 * bool(picture.levels)
    x = _scale(span, 14, WIDTH - RIGHT)
    parts = [_title(picture.title)]
    for tick in ticks(*span):
        parts.append(_text(x(tick), bottom + 14, label(tick), "soft", 11, anchor=_anchor(tick, span)))
    for value, name in picture.levels:
        parts.append(_text(x(value), bottom + 28, name, "soft", 11, anchor=_anchor(value, span)))
    for k, row in enumerate(picture.rows):
        base = top + tall * k
        below = base + LONG * is_long
        parts.append(_text(14, base + 13, short(row.name, 46), "ink", 12))
        parts.append(_text(WIDTH - RIGHT, below + 13, figures[k], "ink", 12, anchor="end"))
        # Behind the figures only: a line through the names would be in their way.
        parts += [_line(x(tick), below + 18, x(tick), below + 32, "grid", "#e3e3e3") for tick in ticks(*span)]
        parts += [
            _line(x(at), below + 17, x(at), below + 33, "axis", "#777777", "2 2") for at, _ in picture.levels
        ]
        parts += _dot(row, x, below + 25)
    parts.append(_text(WIDTH - RIGHT, height - 6, picture.x_name, "soft", 11, anchor="end"))
    return Drawing("".join(parts), WIDTH, height)


def _figures(row: Row, spec: str) -> str:
    return format(row.value, spec) + (f" [{row.ends[0]:{spec}}, {row.ends[1]:{spec}}]" if row.ends else "")


def _dot(row: Row, x: Scale, y: float) -> list[str]:
    parts = []
    if row.ends:
        parts.append(_line(x(row.ends[0]), y, x(row.ends[1]), y, "l0", COLOURS[0], width=2.5))
    if math.isfinite(row.value):
        fill = (
            f'class="l0 hole" fill="#ffffff" stroke="{COLOURS[0]}" stroke-width="1.8"'
            if row.is_hollow
            else f'class="f0" fill="{COLOURS[0]}"'
        )
        parts.append(f'<circle {fill} cx="{x(row.value):.1f}" cy="{y:g}" r="4.5"/>')
    return parts


def _series(each: Series, k: int, x: Scale, y: Scale, ys: Range) -> list[str]:
    """Draw a series: a line with its band, in pieces where values are missing; dots with whiskers."""
    known = [i for i in range(len(each.x)) if math.isfinite(each.x[i]) and math.isfinite(each.y[i])]
    ends = {i: each.ends[i] for i in known if i < len(each.ends) and each.ends[i] is not None}
    if each.kind == "dots":
        parts = []
        for i in known:
            if (pair := ends.get(i)) is not None:
                parts.append(
                    _line(x(each.x[i]), y(pair[0]), x(each.x[i]), y(pair[1]), f"l{k}", COLOURS[k], width=1.5)
                )
            parts.append(_mark(k, x(each.x[i]), y(each.y[i])))
        return parts
    parts = []
    if len(ends) > 1:
        around = [(i, pair) for i, pair in ends.items() if pair is not None]
        upper = [f"{x(each.x[i]):.1f},{y(pair[1]):.1f}" for i, pair in around]
        lower = [f"{x(each.x[i]):.1f},{y(pair[0]):.1f}" for i, pair in reversed(around)]
        parts.append(
            f'<polygon class="f{k}" points="{" ".join(upper + lower)}" fill="{COLOURS[k]}" fill-opacity="0.15"/>'
        )
    dash = f' stroke-dasharray="{DASHES[k]}"' if DASHES[k] else ""
    for piece in _pieces(known):
        points = " ".join(f"{x(each.x[i]):.1f},{_inside(y(each.y[i]), y, ys):.1f}" for i in piece)
        parts.append(
            f'<polyline class="l{k}" points="{points}" fill="none" stroke="{COLOURS[k]}" stroke-width="1.8"{dash} stroke-linejoin="round"/>'
            if len(piece) > 1
            else f'<circle class="f{k}" cx="{points.split(",")[0]}" cy="{points.split(",")[1]}" r="2.5" fill="{COLOURS[k]}"/>'
        )
    return parts


def _mark(k: int, x: float, y: float) -> str:
    style = f'class="f{k}" fill="{COLOURS[k]}"'
    shape = MARKS[k % len(MARKS)]
    if not shape:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    return f'<path {style} d="{shape.format(x=x, y=y, l=x - 3.8, r=x + 3.8, t=y - 3.8, b=y + 3.8)}"/>'


def _inside(at: float, y: Scale, ys: Range) -> float:
    """Keep a point within the plot where its axis was cut."""
    top, bottom = sorted((y(ys[0]), y(ys[1])))
    return min(max(at, top), bottom)


def _pieces(known: Sequence[int]) -> list[list[int]]:
    """Split indices where one is missing."""
    pieces: list[list[int]] = []
    for i in known:
        if pieces and pieces[-1][-1] == i - 1:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return pieces


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    for k, each in enumerate(series):
        left, base = 6 + (k % 2) * WIDTH / 2, TITLE + 10 + LEGEND * (k // 2)
        colour = k % len(COLOURS)
        if each.kind == "dots":
            parts.append(_mark(colour, left + 10, base - 4))
        else:
            parts.append(
                _line(left, base - 4, left + 20, base - 4, f"l{colour}", COLOURS[colour], DASHES[colour], 1.8)
            )
        parts.append(_text(left + 26, base, short(each.name, 25), "soft", 11))
    return parts


def _scale(span: Range, low: float, high: float) -> Scale:
    """Return the map from a range of values to pixels."""
    width = span[1] - span[0] or 1.0
    return lambda value: low + (value - span[0]) / width * (high - low)


def _anchor(value: float, span: Range) -> str:
    """Keep a text at an axis's end inside the picture."""
    share = (value - span[0]) / (span[1] - span[0] or 1.0)
    return "start" if share < 0.06 else "end" if share > 0.94 else "middle"


def _line(
    x1: float, y1: float, x2: float, y2: float, name: str, colour: str, dash: str = "", width: float = 1.0
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'


def _title(title: str, unit: str = "") -> str:
    beside = (
        f'<tspan class="soft" font-size="11" font-weight="400" fill="#595959" dx="8">{escaped(unit)}</tspan>'
        if unit
        else ""
    )
    return f'<text class="ink" x="6" y="15" font-size="13" font-weight="600" fill="#1b1b1b">{escaped(title)}{beside}</text>'


def _text(
    x: float, y: float, text: str, name: str, size: int, anchor: str = "start", weight: int = 400
) -> str:
    colour = "#1b1b1b" if name == "ink" else "#595959"
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escaped(text)}</text>"
    )
