"""Held-out pairs: how often and by how much the policy's implicit reward prefers the chosen completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dpo_cli.evaluate.baselines import Baselines, baselines
from dpo_cli.evaluate.statistics import Interval, accuracy_interval
from dpo_cli.methods._base import Method, mean_loss
from dpo_cli.types import LogProbs, TokenGroup

Sums = Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Evaluation:
    """Held-out pairs in figures."""

    n: int
    accuracy: float
    """Share of pairs whose chosen completion has the higher reward; ties count as wrong."""
    ci: Interval | None
    """95% interval over prompts; None with fewer than two prompts."""
    margin: float
    """Mean reward of chosen minus rejected."""
    loss: float
    ties: int
    baselines: Baselines
    metrics: dict[str, float]
    """Means of everything the method reports, without prefix."""

    def as_metrics(self) -> dict[str, float]:
        """Give full metric names and values for the sinks."""
        values = {f"eval/{name}": value for name, value in self.metrics.items()}
        values |= {"eval/loss": self.loss, "eval/longer_wins": self.baselines.longer_wins}
        if self.ci is not None:
            values |= {
                "eval/rewards/accuracies_ci_lo": self.ci[0],
                "eval/rewards/accuracies_ci_hi": self.ci[1],
            }
        return values

    def as_dict(self) -> dict[str, Any]:
        """Give the figures that `status.json` holds."""
        return {
            "accuracy": self.accuracy,
            "ci": None if self.ci is None else list(self.ci),
            "n": self.n,
            "margin": self.margin,
            "loss": self.loss,
            "longer_wins": self.baselines.longer_wins,
            "ties": self.ties,
            "reference_wins": self.baselines.reference_total,
        }


def evaluate_pairs(
    groups: Sequence[TokenGroup],
    clusters: Sequence[str],
    policy: Sequence[Sums],
    reference: LogProbs | None,
    method: Method,
    config: Any,
    tie: float = 0.0,
) -> Evaluation:
    """Give the figures of held-out pairs, every pair counted once.

    Args:
        groups: n pairs, chosen first.
        clusters: a digest of each pair's prompt, (n,): the interval is over prompts.
        policy: (summed log-prob, scored tokens) of each pair's completions under the policy.
        reference: the same completions, (2n,), on the CPU; None for a method without a reference.
        method: gives rewards and losses.
        config: the method's knobs.
        tie: margins of at most so much per reward unit are ties: differences that arithmetic alone makes.
    """
    flat = [value for sums in policy for value in sums]
    scored = LogProbs(
        torch.tensor([total for total, _ in flat], dtype=torch.float32),
        torch.tensor([tokens for _, tokens in flat]),
    )
    out = method.loss(scored, reference, config)
    margins = out.metrics["rewards/margins"].double().numpy()
    correct = (margins > tie).astype(np.float64)
    return Evaluation(
        n=len(groups),
        accuracy=float(correct.mean()),
        ci=accuracy_interval(correct, clusters),
        margin=float(margins.mean()),
        loss=float(mean_loss(out, scored)),
        ties=int((np.abs(margins) <= tie).sum()),
        baselines=baselines(groups, None if reference is None else reference.total.numpy()),
        metrics={name: float(values.double().mean()) for name, values in out.metrics.items()},
    )
