"""What the reference thinks of the data, before anything is trained: the first place where a wrong reference shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpo_cli.data.row_report import longer_wins
from dpo_cli.methods._base import wins
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.types import TokenGroup

UNTUNED = -3.5
"""Nats per token. Under SmolLM2-135M-Instruct its own answers lie at -2.4 to -2.9, UltraFeedback's at -2.0, HH's at -2.5, but answers in a
style that it was never tuned on at -4.4 (scripts/reference_levels.py). A larger model is surer of everything: silence proves less there."""

AGAINST = 0.25
"""With no more than this share ranked right, summed and per token, over `ENOUGH` pairs, labels may be turned over; sets in order: 29 to 51 %."""
ENOUGH = 50


@dataclass(frozen=True)
class ReferenceFacts:
    """Figures over pairs."""

    chosen: float
    """Mean log-prob of a chosen answer's token, nats, averaged over pairs."""
    rejected: float
    right: float
    """Share of pairs whose chosen answer has the larger summed log-prob, ties half."""
    right_per_token: float
    """The same by mean log-prob a token: what length does to the sum is no preference."""
    longer_wins: float
    """Share of pairs whose chosen answer has more scored tokens, ties half."""
    n: int

    def lines(self) -> list[str]:
        """Say the figures, and what is odd about them."""
        line = (
            f"reference on {self.n:,} pairs: chosen {self.chosen:.2f}, rejected {self.rejected:.2f} nats per token;"
            f' ranks {self.right:.0%} right ("longer wins" {self.longer_wins:.0%})'
        )
        return [line, *self._warnings()]

    def _warnings(self) -> list[str]:
        found = []
        if self.n >= ENOUGH and max(self.right, self.right_per_token) <= AGAINST:
            found.append(
                f"warning: the reference likes the rejected answer better in {1 - self.right:.0%} of pairs, per token in"
                f" {1 - self.right_per_token:.0%}: labels may be turned over. Fix: read some rows with `dpo peek`; if they are right, go on"
            )
        if self.chosen < UNTUNED:
            found.append(self._untuned())
        return found

    def _untuned(self) -> str:
        return (
            f"warning: chosen answers at {self.chosen:.1f} nats per token look untuned, as under a base model (below {UNTUNED:g}):"
            " log-ratios will be large and noisy. Fix: a reference that was fine-tuned (SFT) on such answers"
        )


def facts_of(groups: Sequence[TokenGroup], values: ReferenceValues) -> ReferenceFacts | None:
    """Return the figures over all groups of two; None where there are none.

    Args:
        groups: pairs, the preferred completion first.
        values: the reference's, of all of them.
    """
    groups = [group for group in groups if len(group.keys) == 2]
    if not groups:
        return None
    both = np.array([values.of_keys(group.keys) for group in groups], dtype=np.float64)
    totals, per_token = both[:, :, 0], both[:, :, 0] / both[:, :, 1]
    chosen, rejected = per_token.mean(0).tolist()
    return ReferenceFacts(
        chosen,
        rejected,
        float(wins(totals[:, 0] - totals[:, 1]).mean()),
        float(wins(per_token[:, 0] - per_token[:, 1]).mean()),
        longer_wins(groups),
        len(groups),
    )
