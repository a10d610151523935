"""Held-out pairs: how often and by how much the policy's implicit reward prefers the chosen completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpo_cli.evaluate.intervals import Interval, accuracy_interval
from dpo_cli.evaluate.pairs.baselines import Baselines, baselines
from dpo_cli.evaluate.pairs.method_free_metrics import Axis, axis
from dpo_cli.methods._base import Method, annotated, mean_loss, pairs, reward_metrics, with_ties
from dpo_cli.types import LogProbs, TokenGroup


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Held-out pairs in figures."""

    n: int
    accuracy: float | None
    """Share of pairs whose chosen completion has the higher reward, ties half; of labelled completions the AUC."""
    ci: Interval | None
    """95% interval over prompts; None with fewer than two prompts."""
    margin: float
    """Mean reward of chosen minus rejected; where there is only one kind, the mean reward."""
    loss: float
    ties: int
    baselines: Baselines | None
    metrics: dict[str, float]
    """Means of everything the method reports, without prefix."""
    what: str = "reward accuracy"
    """Name of the figure in `accuracy`, or of that in `margin` where there is none."""
    axis: Axis = field(default_factory=Axis)
    """What can be compared with other methods; empty where the rows are no pairs."""
    correct: np.ndarray | None = None
    """What each pair counts in the accuracy, (n,); None where the rows are no pairs."""

    def as_metrics(self) -> dict[str, float]:
        """Return full metric names and values for the sinks."""
        values = {f"eval/{name}": value for name, value in self.metrics.items()}
        values["eval/loss"] = self.loss
        values |= {f"eval/axis/{name}": value for name, value in self.axis.figures().items()}
        if self.baselines is not None:
            values["eval/longer_wins"] = self.baselines.longer_wins
        elif self.accuracy is not None:
            values["eval/rewards/auc"] = self.accuracy
        if self.ci is not None:
            name = "auc" if self.baselines is None else "accuracies"
            values |= {f"eval/rewards/{name}_ci_lo": self.ci[0], f"eval/rewards/{name}_ci_hi": self.ci[1]}
        return values

    def as_dict(self) -> dict[str, Any]:
        """Return the figures that `status.json` holds."""
        return {
            "accuracy": self.accuracy,
            "ci": None if self.ci is None else list(self.ci),
            "n": self.n,
            "margin": self.margin,
            "loss": self.loss,
            "what": self.what,
            "longer_wins": self.baselines and self.baselines.longer_wins,
            "ties": self.ties,
            "reference_wins": self.baselines and self.baselines.reference_total,
            "axis": self.axis.figures(),
        }


def evaluate_pairs(
    groups: Sequence[TokenGroup],
    clusters: Sequence[str],
    policy: LogProbs,
    reference: LogProbs | None,
    method: Method,
    config: Any,
    tie_nats: float = 0.0,
) -> Evaluation:
    """Return the figures of held-out pairs, every pair counted once.

    Args:
        groups: n pairs, chosen first.
        clusters: a digest of each pair's prompt, (n,): the interval is over prompts.
        policy: of the pairs' completions, (2n,), on the CPU.
        reference: the same completions, (2n,), on the CPU; None for a method without a reference.
        method: gives rewards and losses.
        config: the method's knobs.
        tie_nats: see `methods._base.ties`.
    """
    loss, metrics = judged(annotated(policy, groups), reference, method, config, tie_nats)
    margins, correct = (metrics[f"rewards/{name}"].double().numpy() for name in ("margins", "accuracies"))
    is_tie = correct == 0.5
    # A reward model gives scores, no log-probs.
    totals = None if method.trains_head else policy.total.double().numpy()
    theirs = None if reference is None else reference.total.double().numpy()
    return Evaluation(
        n=len(groups),
        accuracy=float(correct.mean()),
        ci=accuracy_interval(correct, clusters),
        margin=float(margins.mean()),
        loss=loss,
        ties=int(is_tie.sum()),
        baselines=baselines(groups, theirs),
        metrics={name: float(values.double().nanmean()) for name, values in metrics.items()},
        axis=axis(margins, clusters, totals, policy.tokens.numpy(), theirs, is_tie),
        correct=correct,
    )


def judged(
    scored: LogProbs, reference: LogProbs | None, method: Method, config: Any, tie_nats: float
) -> tuple[float, dict[str, Tensor]]:
    """Return a method's loss and its metrics on pairs; one that trains on other data gets of each pair what it would train on.

    A pair's `rewards/accuracies` is 1, 0 or, for a tie within `tie_nats`, 1/2: see `methods._base.wins`.
    """
    if method.reward is None:
        out = method.loss(scored, reference, config)
        return float(mean_loss(out, scored)), with_ties(out.metrics, scored, reference, tie_nats)
    metrics = reward_metrics(*pairs(method.reward(scored, reference, config)), scored)
    if method.data == "targets":
        trained_on = LogProbs(scored.total[0::2], scored.tokens[0::2])
    else:
        trained_on = replace(scored, labels=torch.arange(len(scored.total)) % 2 == 0)
    loss = mean_loss(method.loss(trained_on, reference, config), trained_on, 1)
    return float(loss), with_ties(metrics, scored, reference, tie_nats)
