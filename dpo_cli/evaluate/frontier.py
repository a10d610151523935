"""What distance from the reference buys: samples at several temperatures and checkpoints, scored by somebody else than the policy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_cli.evaluate.statistics import Interval

FRONTIER = "frontier.jsonl"
"""In a run's folder: a line a checkpoint and temperature, of samples that a judge scored."""


@dataclass(frozen=True)
class Point:
    """Samples of one checkpoint at one temperature, as somebody judged them."""

    kl: float
    """KL of the policy from the reference on its own samples, nats a sample."""
    reward: float
    what: str
    """What `reward` is: a reward model's mean score, a win rate."""
    kl_ci: Interval | None = None
    reward_ci: Interval | None = None


def read_frontier(path: Path) -> list[Point]:
    """Give the points of a `frontier.jsonl`; none where there is no such file, and lines that are no points are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [point for line in lines if (point := _point(line)) is not None]


def _point(line: str) -> Point | None:
    try:
        row = json.loads(line)
        kl, reward = float(row["kl"]), float(row["reward"])
        what = str(row.get("what", "reward"))
        ends = (_interval(row.get("kl_ci")), _interval(row.get("reward_ci")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Point(kl, reward, what, *ends) if math.isfinite(kl + reward) else None


def _interval(ends: Any) -> Interval | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))
