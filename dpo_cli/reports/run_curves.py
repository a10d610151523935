"""A run's curves from the rows of its `metrics.jsonl`: which names belong into one picture, and what stands beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from dpo_cli.reports.charts.chart import POINTS, Chart, Range, Series, thinned

Rows = Sequence[Mapping[str, Any]]

MOST_OTHERS = 6
"""Pictures of names that a method logs beside the usual ones."""


@dataclass(frozen=True)
class Curve:
    """A picture: names without their `train/` or `eval/`, and what each is called there."""

    title: str
    unit: str
    names: Sequence[tuple[str, str]]
    levels: Sequence[tuple[float, str]] = ()


CURVES = (
    Curve("Loss", "", [("loss", "")]),
    Curve("Reward accuracy", "share of pairs", [("rewards/accuracies", "")]),
    Curve("Rewards separated by label", "AUC", [("rewards/auc", "")], [(0.5, "a coin")]),
    Curve("Reward margin", "reward units", [("rewards/margins", "")]),
    Curve("Rewards", "reward units", [("rewards/chosen", "chosen"), ("rewards/rejected", "rejected")]),
    Curve(
        "Log-ratio to the reference",
        "nats",
        [("logratio/chosen", "chosen"), ("logratio/rejected", "rejected")],
    ),
    Curve(
        "Log-prob per token",
        "nats",
        [("logps/chosen_per_token", "chosen"), ("logps/rejected_per_token", "rejected")],
    ),
    Curve("Gradient norm", "before clipping", [("grad_norm", "")]),
    Curve("Learning rate", "", [("learning_rate", "")]),
)
_KNOWN = {name for curve in CURVES for name, _ in curve.names} | {
    "epoch",
    "lengths/chosen",
    "lengths/rejected",
    "logps/chosen",
    "logps/rejected",
}


def curves_of(rows: Rows, clip_norm: float | None = None) -> tuple[list[Chart], str]:
    """Return the pictures of a run, and what they leave out, in words.

    Args:
        rows: logged steps in order, as `read_metrics` gives them.
        clip_norm: where gradients are clipped; a line in their picture.
    """
    others = sorted({name[6:] for row in rows for name in row if name.startswith("train/")} - _KNOWN)
    wanted = [*CURVES, *(Curve(name, "", [(name, "")]) for name in others[:MOST_OTHERS])]
    charts = [chart for curve in wanted if (chart := _chart(curve, rows, clip_norm)) is not None]
    left_out = []
    if len(rows) > POINTS:
        left_out.append(f"{len(rows):,} logged steps are shown as {POINTS} means; metrics.jsonl has them all")
    if others[MOST_OTHERS:]:
        left_out.append(f"not drawn: {', '.join(others[MOST_OTHERS:])[:500]}")
    return charts, "; ".join(left_out)


def _chart(curve: Curve, rows: Rows, clip_norm: float | None) -> Chart | None:
    series, levels = [], list(curve.levels)
    several = len(curve.names) > 1
    for part, said in (("train", "training"), ("eval", "held out")):
        for name, short in curve.names:
            called = f"{short}, {said}" if several else said
            series.append(_series(rows, part, name, called))
    found = [each for each in series if each.x]
    if not found:
        return None
    if curve.title == "Reward accuracy":
        levels += _length_rule(rows)
    drawn = [y for each in found for y in each.y]
    if curve.title == "Gradient norm" and clip_norm and max(drawn) >= clip_norm / 3:
        levels.append((clip_norm, "clipped above"))
    is_share = curve.title in ("Reward accuracy", "Rewards separated by label")
    y_range = (0.0, 1.0) if is_share else None
    return Chart(curve.title, "step", curve.unit, found, levels, y_range=y_range, x_range=_steps(rows))


def _steps(rows: Rows) -> Range | None:
    """Return the first and the last logged step: what all pictures of a run span; None for a single one."""
    steps = [float(row["step"]) for row in rows]
    return (min(steps), max(steps)) if max(steps) > min(steps) else None


def _series(rows: Rows, part: str, name: str, called: str) -> Series:
    """Return one name over the steps: training as a line, evaluations as dots with their intervals."""
    full = f"{part}/{name}"
    held = [row for row in rows if isinstance(row.get(full), int | float) and math.isfinite(row[full])]
    x, y = [float(row["step"]) for row in held], [float(row[full]) for row in held]
    if part == "train":
        return thinned(Series(called, x, y))
    ends = [_interval(row, full) for row in held]
    return replace(thinned(Series(called, x, y)), kind="dots", ends=ends if len(x) <= POINTS else ())


def _interval(row: Mapping[str, Any], full: str) -> Range | None:
    low, high = row.get(f"{full}_ci_lo"), row.get(f"{full}_ci_hi")
    return None if low is None or high is None else (float(low), float(high))


def _length_rule(rows: Rows) -> list[tuple[float, str]]:
    longer = next(
        (row["eval/longer_wins"] for row in reversed(rows) if row.get("eval/longer_wins") is not None), None
    )
    if longer is None:
        return []
    rule = "longer wins" if longer >= 0.5 else "shorter wins"
    return [(max(longer, 1 - longer), rule)]


def window_of(rows: Rows) -> int | None:
    """Return over how many steps a logged training value is a mean; None where that is not known."""
    steps = [row["step"] for row in rows if "train/loss" in row]
    gaps = [later - earlier for earlier, later in pairwise(steps)]
    return sorted(gaps)[len(gaps) // 2] if gaps else None
