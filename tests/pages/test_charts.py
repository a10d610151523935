"""Charts: ticks people read, ranges that hold what is drawn, SVG that any reader parses."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from dpo_cli.reports.charts.chart import (
    Chart,
    Intervals,
    Row,
    Series,
    interval_range,
    label,
    thinned,
    ticks,
    y_range,
)
from dpo_cli.reports.charts.svg import COLOURS, document, svg
from dpo_cli.reports.charts.text import plain, short

CHART = Chart(
    "Loss",
    "step",
    "nats",
    [
        Series("training", [1.0, 2.0, 3.0], [0.7, 0.5, 0.4], [(0.6, 0.8), (0.4, 0.6), (0.3, 0.5)]),
        Series("held out", [2.0], [0.9], [(0.85, 0.95)], kind="dots"),
    ],
    [(1.5, "a level")],
)
INTERVALS = Intervals("Accuracy", "share", [Row("a", 0.7, (0.6, 0.8)), Row("b", 0.5)], [(0.5, "a coin")])
SPACE = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 47, [10, 20, 30, 40]),
        (-2.2, 0.4, [-2, -1.5, -1, -0.5, 0]),
        (7, 7, [7]),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_learning_rate_and_a_count_are_both_readable() -> None:
    assert [label(value) for value in (0, 5e-7, 0.25, 1500, 0.30000000000000004, -2e-17)] == [
        "0",
        "5e-7",
        "0.25",
        "1,500",
        "0.3",
        "0",
    ]


def test_axes_hold_intervals_and_levels() -> None:
    low, high = y_range(CHART)
    assert low < 0.3 and high > 1.5
    low, high = interval_range(INTERVALS)
    assert low < 0.5 and high > 0.8


def test_a_long_line_becomes_means_of_neighbours() -> None:
    long = Series("training", list(range(3_000)), [float(i % 2) for i in range(3_000)])
    few = thinned(long, 300)

    assert len(few.x) == len(few.y) == 300
    assert few.y == [0.5] * 300 and few.x[0] == 4.5
    assert thinned(replace(long, kind="dots")).y == long.y


def test_what_is_drawn_is_where_it_belongs() -> None:
    root = ET.fromstring(document([CHART, INTERVALS]))
    marks = [str(each.get("d")) for each in root.iter(f"{SPACE}path")]
    dots = [tuple(map(float, re.findall(r"M([\d.]+) ([\d.]+)H", mark)[0])) for mark in marks]
    (line,) = [each for each in root.iter(f"{SPACE}polyline") if each.get("class") == "l0"]
    points = [tuple(map(float, point.split(","))) for point in str(line.get("points")).split()]

    assert len(points) == 3 and points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] < points[1][1] < points[2][1], "smaller losses lie lower"
    # The square of the held-out loss: its left upper corner, in the legend and in the plot.
    assert any(abs(x - points[1][0]) < 5 and y < points[0][1] for x, y in dots), "same step, larger loss"
    assert {each.get("fill") for each in root.iter(f"{SPACE}polygon")} == {COLOURS[0]}
    texts = [each.text for each in root.iter(f"{SPACE}text")]
    assert {"a level", "a coin", "0.700 [0.600, 0.800]", "0.500"} <= set(texts)


def test_a_missing_value_leaves_a_gap() -> None:
    broken = Series("training", [1, 2, 3, 4, 5], [1.0, 2.0, math.nan, 2.0, 1.0])
    root = ET.fromstring(document([replace(CHART, series=[broken])]))

    assert len(list(root.iter(f"{SPACE}polyline"))) == 2
    assert "nan" not in svg(replace(CHART, series=[broken]))


def test_names_from_data_are_text() -> None:
    hostile = "</text><script>alert(1)</script>\x00\x1b[31m\u202e"
    picture = replace(CHART, title=hostile, y_name=hostile, levels=[(1.0, hostile)])
    root = ET.fromstring(document([picture, Intervals(hostile, hostile, [Row(hostile, 0.5)])]))

    assert not list(root.iter(f"{SPACE}script"))
    assert "\x1b" not in svg(picture) and "\u202e" not in svg(picture)


def test_texts_lose_nothing_but_what_acts() -> None:
    assert plain("a\nb\tc é 日本 \x07 \ud800") == "a\nb\tc é 日本 \\x07 \\ud800"
    assert short("a  b\nc" + "d" * 50, 10) == "a b cdddd…"
