"""The same charts as PNG, for slides: by matplotlib, where it is installed (`dpo-cli[plots]`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.packages import is_installed
from dpo_cli.reports.charts.chart import Chart, Intervals, Picture, Series, interval_range, x_range, y_range
from dpo_cli.reports.charts.svg import COLOURS, DASHES
from dpo_cli.reports.charts.text import plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "PNG needs matplotlib: pip install 'dpo-cli[plots]'"
DPI = 150
MARKERS = "os^D"
"""As `svg.MARKS`."""
_MARGIN = 8
"""Points between a name and its line."""


def has_matplotlib() -> bool:
    """Return whether PNG can be written here."""
    return is_installed("matplotlib")


def write_png(pictures: Sequence[Picture], path: Path, columns: int = 2) -> None:
    """Write charts side by side as one PNG, on white.

    Raises:
        ImportError: no matplotlib.
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = math.ceil(len(pictures) / columns)
    columns = min(columns, len(pictures))
    tall = [max(_inches(each) for each in pictures[k * columns : (k + 1) * columns]) for k in range(lines)]
    figure = Figure(figsize=(6.2 * columns, sum(tall)), layout="constrained")
    FigureCanvasAgg(figure)  # Agg, and no global state: pyplot would ask for a display
    # A part of its own for each: long names in one would make all the others narrow.
    parts = figure.subfigures(lines, columns, squeeze=False, height_ratios=tall)
    for k, picture in enumerate(pictures):
        part = parts[k // columns][k % columns]
        part.suptitle(_text(picture.title), x=0.02, ha="left", fontsize=11, fontweight="bold")
        _drawn(picture, part.subplots())
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})


def _inches(picture: Picture) -> float:
    return 3.4 if isinstance(picture, Chart) else 1.3 + 0.42 * len(picture.rows)


def _drawn(picture: Picture, axes: Axes) -> None:
    axes.grid(color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if isinstance(picture, Intervals):
        _intervals(picture, axes)
    else:
        _chart(picture, axes)


def _chart(chart: Chart, axes: Axes) -> None:
    axes.set_xlim(*x_range(chart))
    axes.set_ylim(*y_range(chart))
    axes.set_xlabel(_text(chart.x_name), fontsize=9)
    axes.set_ylabel(_text(chart.y_name))
    if chart.has_diagonal:
        axes.axline((0, 0), slope=1, color="#777777", linestyle=":", linewidth=1)
    for value, name in chart.levels:
        axes.axhline(value, color="#777777", linestyle=":", linewidth=1)
        axes.annotate(
            _text(name), (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    for k, each in enumerate(chart.series):
        _series(each, k % len(COLOURS), axes)
    if len(chart.series) > 1:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)


def _series(each: Series, k: int, axes: Axes) -> None:
    style: dict[str, Any] = {"color": COLOURS[k], "label": _text(short(each.name, 25))}
    known = [i for i, ends in enumerate(each.ends) if ends is not None]
    lower, upper = ([each.ends[i][side] for i in known] for side in (0, 1))  # type: ignore[index]
    if each.kind == "line":
        dashes = tuple(map(float, DASHES[k].split()))
        axes.plot(each.x, each.y, linewidth=1.6, linestyle=(0, dashes) if dashes else "-", **style)
        axes.fill_between([each.x[i] for i in known], lower, upper, color=COLOURS[k], alpha=0.15, linewidth=0)
        return
    axes.plot(each.x, each.y, MARKERS[k % len(MARKERS)], markersize=5, **style)
    axes.vlines([each.x[i] for i in known], lower, upper, color=COLOURS[k], linewidth=1.4)


def _intervals(picture: Intervals, axes: Axes) -> None:
    axes.set_xlim(*interval_range(picture))
    dotted = "".join(f"; dotted: {name}" for _, name in picture.levels)
    axes.set_xlabel(_text(picture.x_name + dotted), fontsize=9, loc="right")
    places = range(len(picture.rows) - 1, -1, -1)
    axes.set_ylim(-0.6, len(picture.rows) - 0.4)
    axes.set_yticks(list(places), [_text(short(row.name, 36)) for row in picture.rows], fontsize=9)
    axes.tick_params(axis="y", length=0, pad=_MARGIN)
    for at, row in zip(places, picture.rows, strict=True):
        if row.ends:
            axes.hlines(at, *row.ends, color=COLOURS[0], linewidth=2.2)
        axes.plot(
            [row.value], [at], "o", color=COLOURS[0], mfc="white" if row.is_hollow else None, markersize=6
        )
        axes.annotate(
            f"{row.value:{picture.spec}}",
            (row.value, at),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    for value, _ in picture.levels:
        axes.axvline(value, color="#777777", linestyle=":", linewidth=1)


def _text(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return plain(text).replace("$", r"\$")
