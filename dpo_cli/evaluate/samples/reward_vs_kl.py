"""What distance from the reference buys: samples at several temperatures and checkpoints, scored by somebody else than the policy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpo_cli.evaluate.intervals import Interval, accuracy_interval, mean_interval
from dpo_cli.evaluate.judges._base import Verdict
from dpo_cli.evaluate.samples.samples_file import log_ratio, write_rows
from dpo_cli.evaluate.samples.win_rate import Contest

FRONTIER = "frontier.jsonl"
"""In a run's folder: a line a checkpoint and temperature, of samples that a judge scored."""


@dataclass(frozen=True)
class Point:
    """Samples of one checkpoint at one temperature, as somebody judged them."""

    kl: float
    """Mean log-ratio of the policy to the reference on its own samples, nats a sample: at temperature 1 an estimate of the KL."""
    reward: float
    what: str
    """What `reward` is: a reward model's mean score, a win rate."""
    kl_ci: Interval | None = None
    reward_ci: Interval | None = None
    temperature: float = 1.0
    model: str = ""
    """Digest of the weights that were sampled."""


def points_of(asked: Sequence[Contest], verdicts: Sequence[Verdict], judge: str) -> list[Point]:
    """Return the points of samples that a judge compared with the reference's: its win rate, and its mean score where it gives scores.

    Args:
        asked: the contests; those against the data's answers are no points.
        verdicts: one each; what has none counts nowhere.
        judge: its name.
    """
    both = [
        (contest, verdict)
        for contest, verdict in zip(asked, verdicts, strict=True)
        if contest.against == "reference"
        and verdict.win is not None
        and contest.row["policy"].get("ref_logp") is not None
    ]
    found = []
    for temperature in sorted({contest.row["temperature"] for contest, _ in both}):
        here = [(c.row, v) for c, v in both if c.row["temperature"] == temperature]
        prompts, said = [row["prompt_key"] for row, _ in here], [row["policy"] for row, _ in here]
        ratio = np.array([answer["logp"] - answer["ref_logp"] for answer in said])
        far = log_ratio(ratio, np.array([answer["tokens"] for answer in said], dtype=np.float64), prompts)
        wins = np.array([verdict.win for _, verdict in here], dtype=np.float64)
        what, who = f"win rate against the reference, judge {judge}", (temperature, said[0]["digest"])
        rewards = [(what, wins, accuracy_interval(wins, prompts))]
        if all(verdict.scores for _, verdict in here):
            scores = np.array([verdict.scores[0] for _, verdict in here if verdict.scores])
            rewards.append((f"mean score of {judge}", scores, mean_interval(scores, prompts)))
        found += [
            Point(far["mean"], float(values.mean()), what, far["ci"], ci, *who)
            for what, values, ci in rewards
        ]
    return found


def add_points(points: Sequence[Point], path: Path) -> None:
    """Put points into a `frontier.jsonl`, in the place of those of the same samples and judge.

    Raises:
        StorageError: it cannot be written.
    """
    new = {(point.what, point.model, point.temperature) for point in points}
    kept = [point for point in read_frontier(path) if (point.what, point.model, point.temperature) not in new]
    write_rows([asdict(point) for point in [*kept, *points]], path)


def read_frontier(path: Path) -> list[Point]:
    """Return the points of a `frontier.jsonl`; none where there is no such file, and lines that are no points are left out."""
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
        who = (float(row.get("temperature", 1.0)), str(row.get("model", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Point(kl, reward, what, *ends, *who) if math.isfinite(kl + reward) else None


def _interval(ends: Any) -> Interval | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))
