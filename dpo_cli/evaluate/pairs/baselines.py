"""What needs no training to reach: the accuracies that a trained model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpo_cli.data.row_report import longer_wins
from dpo_cli.methods._base import wins
from dpo_cli.types import TokenGroup


@dataclass(frozen=True)
class Baselines:
    """Shares of pairs, 0 to 1, in which a trivial rule prefers the chosen completion; a tie counts half."""

    longer_wins: float
    """Prefers the completion with more scored tokens."""
    shorter_wins: float
    reference_total: float | None = None
    """Prefers what the reference finds likelier, by summed log-probability; None without a reference."""
    reference_per_token: float | None = None
    """The same by log-probability per scored token."""


def baselines(groups: Sequence[TokenGroup], reference: np.ndarray | None = None) -> Baselines:
    """Return the shares of the trivial rules over pairs (K = 2, chosen first).

    Args:
        groups: n pairs, n >= 1.
        reference: summed log-probs of chosen, rejected, chosen, ..., nats, (2n,); None without a reference.
    """
    lengths = np.array([group.scored for group in groups])
    assert lengths.ndim == 2 and lengths.shape[1] == 2, "baselines compare pairs"
    longer = longer_wins(groups)
    if reference is None:
        return Baselines(longer, 1 - longer)
    totals = np.asarray(reference, dtype=np.float64).reshape(-1, 2)
    return Baselines(longer, 1 - longer, first_wins(totals), first_wins(totals / lengths))


def first_wins(scores: np.ndarray) -> float:
    """Return the share of (n, 2) rows whose first score is larger, ties half."""
    return float(wins(scores[:, 0] - scores[:, 1]).mean())
