"""Which pairs look mislabelled: a model contradicts a label that is turned over, also where it is sure.

Two questions, of two margins. *How many* labels are turned is asked of each pair's first visit, before any gradient of its own. *Which* they
are is asked of a trained model: its own gradients have pulled a turned pair up, but hardly past the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 50
"""Of fewer pairs nothing is said."""
_STARTS = [(np.log(k), rate) for k in (0.5, 2.0, 6.0) for rate in (-4.0, -1.0)]
"""Of the fit: log k, and the logit of 2 e."""
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Flips:
    """What the margins of n pairs say of their labels."""

    rate: float | None
    """Share of the labels that is turned over; None where the model's own doubt explains all contradictions."""
    suspected: np.ndarray
    """(n,) bool."""


def find_flips(first: np.ndarray, standing: np.ndarray) -> Flips:
    """Return the share of turned labels and as many suspects: the pairs that stand lowest, if below zero.

    Args:
        first: each pair's margin before any gradient of its own, (n,), nan where it has none.
        standing: its margin under the trained model, (n,); see `Ledger.standing`.
    """
    met = first[~np.isnan(first)]
    rate = turned_share(met if len(met) >= FEWEST else standing)
    suspected = np.zeros(len(standing), dtype=bool)
    if rate is not None:
        suspected[np.argsort(standing, kind="stable")[: round(rate * len(standing))]] = True
    return Flips(rate, suspected & (standing < 0))


def turned_share(margins: np.ndarray) -> float | None:
    """Return the share e of turned labels that fits the signs of margins x, (n,), given their sizes; None where e = 0 fits as well.

    P(x > 0 | |x|) = (1 - e) sigma(k |x|) + e sigma(-k |x|), by maximum likelihood in k and e: the model is right with the probability that
    Bradley and Terry give its margin, calibrated by k. Of the pairs it is surest of, e is then the share that it contradicts. Nothing is
    assumed of how the margins are spread. A share must be worth its parameter by Schwarz's criterion.
    """
    size = float(np.abs(margins).mean()) if len(margins) >= FEWEST else 0.0
    if not size:
        return None
    x = margins / size
    rate, deviance = _fit(x)
    return rate if _fit(x, turned=False)[1] - deviance > np.log(len(x)) else None


def _fit(x: np.ndarray, turned: bool = True) -> tuple[float, float]:
    """Return e and the deviance (twice the negative log-likelihood) of the best fit; e is 0 without `turned`."""
    from scipy.optimize import minimize

    def deviance(at: np.ndarray) -> float:
        right = _sigma(np.exp(at[0]) * x)
        rate = 0.5 * _sigma(at[1]) if turned else 0.0
        return float(-2 * np.log((1 - rate) * right + rate * (1 - right) + _TINY).sum())

    found = [minimize(deviance, start, method="Nelder-Mead") for start in _STARTS]
    best = min(found, key=lambda each: float(each.fun))
    return (0.5 * float(_sigma(best.x[1])) if turned else 0.0), float(best.fun)


def _sigma(x: np.ndarray | float) -> np.ndarray:
    """Return the logistic function."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x))))
