"""Figures of held-out pairs that mean the same for every method: runs whose rewards have other scales can stand side by side.

A method's own reward (`eval/rewards/*`) is in its own units: beta times a log-ratio, or a log-prob per token, or a score. Here are the
log-probs behind it in nats, and the probability that its margins give to what people chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dpo_cli.methods._base import wins

FOLDS = 10
"""Parts of the prompts; each part is judged by a fit to the others."""
BISECTIONS = 60
"""Halvings of the bracket around a slope: beyond what a float64 tells apart."""


@dataclass(frozen=True)
class Margin:
    """A quantity's difference, chosen minus rejected, over pairs."""

    mean: float
    share: float
    """Share of pairs with a difference above 0, ties half."""


@dataclass(frozen=True)
class Calibration:
    """How probable the method's margins make it that the chosen completion is the preferred one: P = sigma(slope margin)."""

    p_chosen: float
    """Mean of P; 0.5 is a coin's."""
    log_likelihood: float
    """Mean of ln P, nats a pair; -0.693 is a coin's, 0 the best. Larger is better: it punishes confidence in the wrong answer."""
    brier: float
    """Mean of (1 - P)^2; 0.25 is a coin's, 0 the best."""


@dataclass(frozen=True)
class Axis:
    """What can be said of held-out pairs whatever the method; None where it cannot be computed."""

    log_prob: Margin | None = None
    """log pi(y|x), nats, summed over the completion; None for a model that gives no log-probs."""
    log_prob_per_token: Margin | None = None
    """The same per scored token."""
    log_ratio: Margin | None = None
    """log pi(y|x) - log pi_ref(y|x), nats. None without a reference: no model is scored for it, compare by `log_prob` then."""
    log_ratio_per_token: Margin | None = None
    """The same per scored token."""
    calibration: Calibration | None = None
    """None with fewer than two prompts."""

    def figures(self) -> dict[str, float]:
        """Return what there is by flat name: `log_ratio_margin`, `log_ratio_accuracy`, ..., `p_chosen`, `log_likelihood`, `brier`."""
        found: dict[str, float] = {} if self.calibration is None else asdict(self.calibration)
        for name, value in vars(self).items():
            if isinstance(value, Margin):
                found |= {f"{name}_margin": value.mean, f"{name}_accuracy": value.share}
        return found


def axis(
    margins: np.ndarray,
    clusters: Sequence[str],
    totals: np.ndarray | None,
    tokens: np.ndarray,
    reference: np.ndarray | None,
    is_tie: np.ndarray,
) -> Axis:
    """Return the figures of n pairs.

    Args:
        margins: the method's own reward of chosen minus rejected, in its own units, (n,).
        clusters: a digest of each pair's prompt, (n,).
        totals: summed log-probs of chosen, rejected, chosen, ..., nats, (2n,); None for a model that gives none.
        tokens: their scored tokens, (2n,).
        reference: the same completions' log-probs under the reference, (2n,); None without one.
        is_tie: pairs whose log-ratios differ by arithmetic alone, summed or per token, (n,) bool.
    """
    calibration = calibrate(margins, clusters)
    if totals is None:
        return Axis(calibration=calibration)
    log_prob, per_token = _margin(totals), _margin(totals / tokens)
    if reference is None:
        return Axis(log_prob, per_token, calibration=calibration)
    ratio = totals - reference
    log_ratio, ratio_per_token = (_margin(values, is_tie) for values in (ratio, ratio / tokens))
    return Axis(log_prob, per_token, log_ratio, ratio_per_token, calibration)


def calibrate(margins: np.ndarray, clusters: Sequence[str]) -> Calibration | None:
    """Return what margins say of pairs, each judged by a slope that was fitted to other prompts' pairs; None with fewer than two prompts.

    Args:
        margins: reward of chosen minus rejected, (n,); their unit does not matter.
        clusters: a digest of each pair's prompt, (n,).
    """
    prompts, prompt = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    if len(prompts) < 2:
        return None
    fold = prompt % min(FOLDS, len(prompts))  # digests come in no order that the data know
    log_p = np.empty(len(margins))
    for part in range(fold.max() + 1):
        here = fold == part
        log_p[here] = _log_sigmoid(slope(margins[~here]) * margins[here])
    p = np.exp(log_p)
    return Calibration(float(p.mean()), float(log_p.mean()), float(np.square(1 - p).mean()))


def slope(margins: np.ndarray) -> float:
    """Return the a >= 0 that maximises sum_i t ln sigma(a m_i) + (1 - t) ln sigma(-a m_i), t = (n + 1)/(n + 2).

    Platt 1999's sigmoid without intercept, for a pair turned round has the opposite margin, and with his targets t, which keep the
    slope finite where all margins have the right sign. 0, which makes every pair a coin, where margins are wrong on average.
    """
    scale = np.sqrt(np.square(margins).mean())
    if not margins.sum() > 0:
        return 0.0
    x, target = margins / scale, (len(margins) + 1) / (len(margins) + 2)

    def excess(a: float) -> float:
        """Return the negative derivative, which rises from below 0 at a = 0 to above 0."""
        return float(np.sum(x * (np.exp(_log_sigmoid(a * x)) - target)))

    low, high = 0.0, 1.0
    while excess(high) < 0:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return float((low + high) / 2 / scale)


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)


def _margin(values: np.ndarray, is_tie: np.ndarray | None = None) -> Margin:
    """Return the difference between the even and the odd of (2n,) values."""
    differences = values[0::2] - values[1::2]
    return Margin(float(differences.mean()), float(wins(differences, is_tie).mean()))
