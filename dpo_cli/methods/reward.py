"""Reward model: a scalar head on the last token, trained to score the chosen completion above the rejected one. Bradley and Terry 1952.

Ouyang et al. 2022, InstructGPT, arXiv:2203.02155.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from dpo_cli.methods._base import Method, pairs, preference_metrics
from dpo_cli.types import LogProbs, LossOutput, Term


@dataclass
class RewardConfig:
    """Knobs of the reward model."""

    name: str = "reward"
    """Selects the method."""
    centering: Annotated[float, Ge(0)] = 0.0
    """Weight of the pull of each pair's mean score towards 0, usually 0 or 0.01; without it only differences of scores mean anything."""


def reward_loss(policy: LogProbs, reference: LogProbs | None, config: RewardConfig) -> LossOutput:
    """-ln sigma(r_w - r_l - m) + c (r_w + r_l)^2   (InstructGPT, eq. 1).

    The margin m is Llama 2's (arXiv:2307.09288, eq. 2), the centering c is Eisenstein et al.'s (2023, arXiv:2312.09244).

    Args:
        policy: `total` holds the scores r of chosen, rejected, chosen, ..., (2B,), with gradient; `margins` m where the data state them.
        reference: not used.
        config: c.

    Returns:
        Both terms and the metrics of preference; rewards are the scores themselves.
    """
    import torch.nn.functional as F

    chosen, rejected = pairs(policy.total)
    gap = chosen - rejected
    losses = -F.logsigmoid(gap if policy.margins is None else gap - policy.margins)
    terms = [Term(losses)]
    if config.centering > 0:
        terms.append(Term((chosen + rejected).square(), weight=config.centering))
    return LossOutput(tuple(terms), preference_metrics(chosen, rejected, policy))


def form(config: RewardConfig) -> str:
    """Say where the score is read and what it is drawn to."""
    centered = f", centered by {config.centering:g}" if config.centering else ", of any mean"
    return f"reward: a scalar head on each row's last token, Bradley-Terry on differences of scores{centered}"


METHOD = Method(
    config=RewardConfig,
    data="pairs",
    needs_reference=False,
    loss=reward_loss,
    paper="Bradley-Terry reward model, as in InstructGPT, arXiv:2203.02155",
    form=form,
    trains_head=True,
)
