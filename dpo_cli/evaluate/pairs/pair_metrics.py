"""From rows to figures: accuracy with its interval, calibration, what length explains, how far the model has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dpo_cli.evaluate.intervals import Interval, accuracy_interval, mean_interval
from dpo_cli.evaluate.pairs.baselines import first_wins
from dpo_cli.evaluate.pairs.method_free_metrics import axis
from dpo_cli.evaluate.pairs.pair_rows import PairRows

SIMILAR = 1.1
"""Answers count as similarly long up to this ratio of scored tokens."""
LENGTHS = ("chosen shorter", "similar", "chosen longer")
BINS = 10
"""Of the probability in a reliability picture, from 0.5 to 1."""
MATCHING = 5
"""Bins of how much the lengths of two answers differ, with equally many pairs each."""


@dataclass(frozen=True)
class Share:
    """An accuracy of some of the rows."""

    n: int
    accuracy: float | None
    """None of no rows."""
    ci: Interval | None


@dataclass(frozen=True)
class Bin:
    """Pairs that the model is about equally sure of."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean probability that the model gives to its own choice."""
    right: float
    """Share of pairs where that is the chosen completion, ties half."""


def share(rows: PairRows) -> Share:
    """Return the accuracy of rows with its interval over prompts."""
    if not len(rows):
        return Share(0, None, None)
    correct = rows.correct
    return Share(len(rows), float(correct.mean()), accuracy_interval(correct, rows.prompt.tolist()))


def by_length(rows: PairRows) -> dict[str, Share]:
    """Return the accuracy where the chosen completion is shorter than the rejected one, about as long (within 10%), longer."""
    ratio = rows.tokens[:, 0] / rows.tokens[:, 1]
    where = (ratio < 1 / SIMILAR, (ratio >= 1 / SIMILAR) & (ratio <= SIMILAR), ratio > SIMILAR)
    return {name: share(rows.take(which)) for name, which in zip(LENGTHS, where, strict=True)}


def length_matched(rows: PairRows) -> Share:
    """Return the accuracy if length said nothing: among pairs whose lengths differ equally much, both signs count the same.

    Pairs are binned by |ln(tokens chosen / tokens rejected)|; in each bin those with the longer chosen and those with the longer
    rejected answer get the same total weight, that of the smaller side twice. "Longer wins" has 0.5 here, whatever the data.
    `n` is the weight in all; pairs of equal length count as they are.
    """
    weights = matching_weights(rows.tokens)
    kept = weights > 0
    if not kept.any():
        return Share(0, None, None)
    correct, weights = rows.correct[kept], weights[kept]
    interval = accuracy_interval(correct, rows.prompt[kept].tolist(), weights)
    return Share(round(weights.sum()), float(np.average(correct, weights=weights)), interval)


def matching_weights(tokens: np.ndarray) -> np.ndarray:
    """Return the weight of each pair in `length_matched`, (n,), from scored tokens, (n, 2)."""
    ratio = np.log(tokens[:, 0] / tokens[:, 1])
    weights = (ratio == 0).astype(np.float64)
    differ = np.flatnonzero(ratio)
    if not len(differ):
        return weights
    size = np.abs(ratio[differ])
    edges = np.quantile(size, np.arange(1, MATCHING) / MATCHING)
    part = np.searchsorted(edges, size, side="right")
    for k in range(MATCHING):
        longer, shorter = (differ[(part == k) & (sign * ratio[differ] > 0)] for sign in (1, -1))
        least = min(len(longer), len(shorter))
        for side in (longer, shorter):
            weights[side] = least / max(len(side), 1)
    return weights


def reliability(rows: PairRows) -> list[Bin]:
    """Return how often the model is right where it is so and so sure: P = sigma(|margin|), the Bradley-Terry probability of its choice."""
    margin = np.where(rows.tie, 0.0, rows.margin)
    sure = 1 / (1 + np.exp(-np.abs(margin)))
    right = rows.correct
    part = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins = []
    for k in range(BINS):
        here = part == k
        if here.any():
            low, high = 0.5 + k / (2 * BINS), 0.5 + (k + 1) / (2 * BINS)
            bins.append(Bin(low, high, int(here.sum()), float(sure[here].mean()), float(right[here].mean())))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean over pairs of |right - confidence| of their bin   (Guo et al. 2017, arXiv:1706.04599)."""
    return sum(each.n * abs(each.right - each.confidence) for each in bins) / sum(each.n for each in bins)


def baselines(rows: PairRows) -> dict[str, float | None]:
    """Return the accuracies of rules that need no training, ties half; those of the reference are None without one."""
    longer = first_wins(rows.tokens)
    reference = rows.ref_logps if rows.has_reference else None
    return {
        "longer_wins": longer,
        "shorter_wins": 1 - longer,
        "reference_sum": None if reference is None else first_wins(reference),
        "reference_mean": None if reference is None else first_wins(reference / rows.tokens),
    }


def drift(rows: PairRows) -> dict[str, float] | None:
    """Return the mean log-ratio of policy to reference, nats, summed and per token; None without a reference.

    On the data's answers, not on the model's own: no KL. Both may fall while the margin grows.
    """
    if not (rows.has_reference and rows.has_logps):
        return None
    ratio = rows.logps - rows.ref_logps
    means, per_token = ratio.mean(0), (ratio / rows.tokens).mean(0)
    return {
        "chosen": float(means[0]),
        "rejected": float(means[1]),
        "chosen_per_token": float(per_token[0]),
        "rejected_per_token": float(per_token[1]),
    }


def figures(rows: PairRows) -> dict[str, Any]:
    """Return everything that can be said of n >= 1 rows, as plain values for JSON."""
    whole, bins, prompts = share(rows), reliability(rows), rows.prompt.tolist()
    totals = rows.logps.ravel() if rows.has_logps else None
    theirs = rows.ref_logps.ravel() if rows.has_reference else None
    return {
        "n": len(rows),
        "prompts": len(set(prompts)),
        "accuracy": whole.accuracy,
        "ci": whole.ci,
        "ties": int(rows.tie.sum()),
        "margin": float(rows.margin.mean()),
        "margin_ci": mean_interval(rows.margin, prompts),
        "ece": calibration_error(bins),
        "reliability": [asdict(each) for each in bins],
        "baselines": baselines(rows),
        "by_length": {name: asdict(each) for name, each in by_length(rows).items()},
        "length_matched": asdict(length_matched(rows)),
        "drift": drift(rows),
        "axis": axis(rows.margin, prompts, totals, rows.tokens.ravel(), theirs, rows.tie).figures(),
    }
