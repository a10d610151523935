"""Which pairs look mislabelled. A label that is turned over turns the sign of its margin: in a noisy set the margins lie in two mirrored heaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRECISION = 0.75
"""The suspects are as many pairs as keep their mean probability, the precision to expect, at least so high."""
LEAST = 0.25
"""No pair is suspected whose own probability is lower."""
FEWEST = 50
"""Of fewer pairs nothing is said."""
_ROUNDS = 500
_STILL = 1e-9


@dataclass(frozen=True, eq=False)
class Flips:
    """What the margins of n pairs say of their labels."""

    probability: np.ndarray
    """That a pair's label is turned over, (n,); 0 throughout where one heap explains the margins as well as two."""
    rate: float | None
    """Share of the labels that is turned over; None where there is one heap."""

    @property
    def suspected(self) -> np.ndarray:
        """Which pairs are suspected, (n,) bool: the likeliest, as many as the two bounds allow."""
        order = np.argsort(-self.probability, kind="stable")
        expected = np.cumsum(self.probability[order]) / np.arange(1, len(order) + 1)
        suspected = np.zeros(len(order), dtype=bool)
        suspected[order[: int((expected >= PRECISION).sum())]] = True
        return suspected & (self.probability >= LEAST)


def find_flips(margins: np.ndarray) -> Flips:
    """Fit margins x, (n,), by (1 - e) N(x; m, s) + e N(x; -m, s), and give each pair's probability of the second heap.

    By expectation and maximisation; two parameters and e, since a turned label changes nothing but the sign. Two heaps must beat one
    (e = 0) by Schwarz's criterion, or there is nothing to suspect.
    """
    nothing = Flips(np.zeros(len(margins)), None)
    if len(margins) < FEWEST or margins.std() == 0:
        return nothing
    turned, likelihood = _fit(margins)
    rate, alone = float(turned.mean()), _log_normal(margins, margins.mean(), margins.std()).sum()
    if not 0 < rate < 0.5 or 2 * (likelihood - alone) < np.log(len(margins)):
        return nothing
    return Flips(turned, rate)


def _fit(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Give each pair's probability of the turned heap, (n,), and the log-likelihood of all."""
    turned, before = (x < 0).astype(np.float64), -np.inf
    for _ in range(_ROUNDS):
        upright = x * (1 - 2 * turned)  # the mean of x and -x by what is likely
        m = float(upright.mean())
        s = float(np.sqrt(max((x**2).mean() - m**2, 1e-12)))  # a turned x has the same square
        rate = min(max(float(turned.mean()), 1e-12), 1 - 1e-12)
        right = np.log1p(-rate) + _log_normal(x, m, s)
        wrong = np.log(rate) + _log_normal(x, -m, s)
        both = np.logaddexp(right, wrong)
        turned, likelihood = np.exp(wrong - both), float(both.sum())
        if likelihood - before < _STILL * len(x):
            break
        before = likelihood
    return turned, likelihood


def _log_normal(x: np.ndarray, m: float, s: float) -> np.ndarray:
    """Give log N(x; m, s)."""
    return np.asarray(-0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi))
