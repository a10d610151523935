"""Intervals that count prompts, not rows: pairs of one prompt go right or wrong together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95

Interval = tuple[float, float]


def accuracy_interval(
    correct: np.ndarray, clusters: Sequence[str], weights: np.ndarray | None = None
) -> Interval | None:
    """Return the 95% interval of a share: a bootstrap over prompts.

    Where every prompt has the same share (all right, say) the bootstrap has no width; then it is Wilson's
    interval with as many trials as prompts.

    Args:
        correct: 1, 0 or, for a tie, a value between, (n,).
        clusters: the prompt of each row, (n,).
        weights: see `mean_interval`.

    Returns:
        (low, high); None with fewer than two prompts.
    """
    interval = mean_interval(correct, clusters, weights)
    if interval is None or interval[0] < interval[1]:
        return interval
    return _wilson(interval[0], len(set(clusters)))


def mean_interval(
    values: np.ndarray, clusters: Sequence[str], weights: np.ndarray | None = None
) -> Interval | None:
    """Return the 95% percentile bootstrap interval, over prompts, of the mean of (n,) values.

    None with fewer than two prompts.

    Args:
        values: (n,).
        clusters: the prompt of each row, (n,).
        weights: what each value counts in the mean, above 0, (n,); None: all the same.
    """
    assert len(values) == len(clusters), "one prompt a value"
    _, cluster = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    if len(values) == 0 or cluster.max() == 0:
        return None
    from scipy.stats import bootstrap

    weights = np.ones(len(values)) if weights is None else weights
    counts = np.bincount(cluster, weights=weights)
    sums = np.bincount(cluster, weights=weights * values)
    if np.ptp(sums / counts) == 0:
        mean = float(sums[0] / counts[0])
        return mean, mean
    result = bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        batch=200,  # 200 x 2000 prompts stay in the CPU's cache
        rng=np.random.default_rng(0),  # a report run twice shows the same figures
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def auc_interval(values: np.ndarray, wanted: np.ndarray, clusters: Sequence[str]) -> Interval | None:
    """Return the 95% percentile bootstrap interval, over prompts, of the AUC (see `metrics.rank.auc`).

    Where every draw gives the same (all separated, say) it is Wilson's interval with as many trials as the rarer kind has rows.

    Args:
        values: (n,).
        wanted: which of them should be high, (n,) bool, some true and some false.
        clusters: the prompt of each row, (n,).

    Returns:
        (low, high); None with fewer than two prompts.
    """
    _, cluster = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    prompts = int(cluster.max()) + 1
    if prompts < 2:
        return None
    _, place = np.unique(values, return_inverse=True)  # equal values share a place
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(prompts, size=prompts), minlength=prompts)[cluster]
        up, down = (np.bincount(place, weights=times * kind) for kind in (wanted, ~wanted))
        if up.any() and down.any():  # a draw of one kind alone has no AUC
            found.append(float(up @ (np.cumsum(down) - down / 2) / (up.sum() * down.sum())))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low < high:
        return float(low), float(high)
    return _wilson(float(low), int(min(wanted.sum(), (~wanted).sum())))


def _wilson(share: float, trials: int) -> Interval:
    """Return Wilson's interval of a share, which ties may make one of no whole number of trials."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z / (1 + z**2 / trials) * (share * (1 - share) / trials + (z / (2 * trials)) ** 2) ** 0.5
    return min(max(middle - reach, 0.0), share), max(min(middle + reach, 1.0), share)
