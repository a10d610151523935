"""Held-out completions without a partner: labelled ones by how well the reward tells them apart, targets by their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_cli.evaluate.intervals import auc_interval
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.methods._base import Method, annotated, mean_loss
from dpo_cli.metrics.rank import auc
from dpo_cli.types import LogProbs, TokenGroup


def evaluate_unpaired(
    groups: Sequence[TokenGroup],
    clusters: Sequence[str],
    policy: LogProbs,
    reference: LogProbs | None,
    method: Method,
    config: Any,
) -> Evaluation:
    """Return the figures of held-out completions, each counted once.

    Args:
        groups: n groups of one completion, all with labels or none.
        clusters: a digest of each one's prompt, (n,): the interval is over prompts.
        policy: of each, (n,), on the CPU.
        reference: the same completions, (n,), on the CPU; None for a method without a reference.
        method: gives rewards and losses; one that trains on labelled completions or targets.
        config: the method's knobs.
    """
    assert method.reward is not None, "a method of single completions rates them"
    scored = annotated(policy, groups)
    labels = scored.labels
    out = method.loss(scored, reference, config)
    rewards = method.reward(scored, reference, config).double().numpy()
    figures: dict[str, Any] = {
        "accuracy": None,
        "ci": None,
        "margin": float(rewards.mean()),
        "what": "log-prob per token",
    }
    if labels is not None and 0 < labels.sum() < len(labels):
        up, down = rewards[labels.numpy()], rewards[~labels.numpy()]
        figures = {
            "accuracy": auc(up, down),
            "ci": auc_interval(rewards, labels.numpy(), clusters),
            "margin": float(up.mean() - down.mean()),
            "what": "label AUC",
        }
    means = {name: float(values.double().nanmean()) for name, values in out.metrics.items()}
    return Evaluation(
        n=len(groups),
        loss=float(mean_loss(out, scored, 1)),
        ties=0,
        baselines=None,
        metrics=means,
        **figures,
    )
