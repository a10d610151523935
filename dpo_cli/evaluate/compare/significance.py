"""Is one model better than another on the same rows, and one recipe than another over its seeds?

Two questions with two answers. Of two *models* everything is known but the prompts: a test paired over rows, in which rows of one prompt
count as one observation. Of two *recipes* a run is only a draw: training again with another seed gives another model, so seeds are
resampled as well as prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpo_cli.evaluate.intervals import LEVEL, Interval, mean_interval

PERMUTATIONS = 9_999
RESAMPLES = 2_000
_BATCH = 500
"""Resamples at once: 500 x 5,000 prompts are 20 MB."""


@dataclass(frozen=True)
class Difference:
    """A minus b, with what it takes to believe it."""

    difference: float
    ci: Interval | None
    """95% interval; None with fewer than two prompts, or of recipes with fewer than two seeds each."""
    p_value: float | None
    """Of the hypothesis of no difference, two-sided, before any correction; None where there is no interval."""


def models_differ(a: np.ndarray, b: np.ndarray, clusters: Sequence[str]) -> Difference:
    """Compare two models on the same rows.

    The p-value is that of a permutation test: were the models alike, the two results of a prompt could be swapped. The interval is a
    bootstrap over prompts of the mean of the rows' differences.

    Args:
        a: what each row counts for one model (1 right, 0 wrong), (n,).
        b: the same rows for the other, (n,).
        clusters: the prompt of each row, (n,).
    """
    rows = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    interval = mean_interval(rows, clusters)
    if interval is None:
        return Difference(float(rows.mean()), None, None)
    _, prompt = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    return Difference(float(rows.mean()), interval, sign_flip_p(np.bincount(prompt, weights=rows)))


def sign_flip_p(sums: np.ndarray) -> float:
    """Return the two-sided p-value of (P,) paired differences: how often random signs give a sum as far from 0."""
    from scipy.stats import permutation_test

    moved = sums[sums != 0]  # a prompt without a difference stays where it is under every swap
    if not len(moved):
        return 1.0
    if len(moved) == 1:
        return 1.0  # both signs are as far from 0
    found = permutation_test(
        (moved, np.zeros_like(moved)),
        lambda x, y, axis: (x - y).sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_BATCH,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def recipes_differ(a: np.ndarray, b: np.ndarray, clusters: Sequence[str]) -> Difference:
    """Compare two recipes, each by several runs that differ in their seed, on the same rows.

    A hierarchical bootstrap: prompts are drawn for both recipes at once, seeds for each. Three things would bias it with a few seeds and
    are corrected. The spread of m drawn seeds is short by sqrt((m - 1) / m): their deviations are stretched by its inverse. What a seed does
    to single prompts is drawn twice, with seeds and with prompts: it is taken off once. And a spread that is itself estimated from m
    seeds asks for Student's t in place of the normal distribution, with Satterthwaite's degrees of freedom over the three parts
    (prompts, seeds of a, seeds of b).

    Args:
        a: what each row counts for each run of one recipe, (seeds, n).
        b: the same rows for the other's runs, (seeds, n).
        clusters: the prompt of each row, (n,).
    """
    from scipy.stats import t as student

    sides = [np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (a, b)]
    difference = float(sides[0].mean() - sides[1].mean())
    _, prompt = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    n_prompts = int(prompt.max()) + 1
    if n_prompts < 2 or min(len(side) for side in sides) < 2:
        return Difference(difference, None, None)
    counts = np.bincount(prompt).astype(np.float64)
    sums = [np.stack([np.bincount(prompt, weights=run) for run in side]) for side in sides]
    parts = [(float(side.mean(1).var(ddof=1)) / len(side), len(side) - 1) for side in sides]
    twice = sum(_interaction(side, counts) for side in sums)
    over_prompts = float(np.var(_drawn(sums, counts), ddof=1)) - sum(v for v, _ in parts) - twice
    parts.append((max(over_prompts, 0.0), n_prompts - 1))
    error = sum(v for v, _ in parts) ** 0.5
    if error == 0:
        return Difference(difference, (difference, difference), 1.0 if difference == 0 else 0.0)
    freedom = error**4 / sum(v**2 / df for v, df in parts)
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
    p_value = 2 * float(student.sf(abs(difference) / error, freedom))
    return Difference(difference, (difference - reach, difference + reach), p_value)


def _drawn(sums: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return the difference of two recipes in each of the bootstrap's draws, (RESAMPLES,).

    Args:
        sums: of each recipe, summed over each prompt's rows, (seeds, P).
        counts: rows of each prompt, (P,).
    """
    rng = np.random.default_rng(0)
    n_prompts, drawn = len(counts), []
    for start in range(0, RESAMPLES, _BATCH):
        size = min(_BATCH, RESAMPLES - start)
        times = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size).astype(np.float64)
        rows = times @ counts
        means = []
        for side in sums:
            m = len(side)
            share = rng.multinomial(m, np.full(m, 1 / m), size) / m
            stretched = 1 / m + (share - 1 / m) * np.sqrt(m / (m - 1))
            means.append((times @ side.T / rows[:, None] * stretched).sum(1))
        drawn.append(means[0] - means[1])
    return np.concatenate(drawn)


def _interaction(sums: np.ndarray, counts: np.ndarray) -> float:
    """Return the variance of the mean over seeds that comes from what seeds do to single prompts, apart from their own level.

    Args:
        sums: summed over each prompt's rows, (seeds, P).
        counts: rows of each prompt, (P,).
    """
    n_rows = counts.sum()
    means = sums.sum(1, keepdims=True) / n_rows
    pull = (sums - counts * means) / n_rows  # of each prompt on its run's mean
    return float(pull.var(axis=0, ddof=1).sum()) / len(sums)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: below 0.05 all at once with 5% risk of any false one.

    Holm 1979: the k-th smallest of m times m - k + 1, never below the one before, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted
