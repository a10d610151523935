"""SFT: imitate the completion. On pairs it is "preferred-FT": the chosen completion alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpo_cli.methods._base import Method
from dpo_cli.types import LogProbs, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SFTConfig:
    """Knobs of SFT; `optim.lr` is usually ten times that of DPO."""

    name: str = "sft"
    """Selects the method."""
    turns: Literal["all", "last"] = "all"
    """Which of a conversation's answers are imitated: all of them, or the last one with those before it as context."""


def sft_loss(policy: LogProbs, reference: LogProbs | None, config: SFTConfig) -> LossOutput:
    """-log pi(y), a mean over all scored tokens of the step: a long completion weighs more than a short one.

    Args:
        policy: log-probs of the targets, nats, (B,), with gradient.
        reference: not used.
        config: not used; `turns` decides which tokens are scored.

    Returns:
        Summed losses in the unit of tokens; log-probs and lengths as metrics.
    """
    total, tokens = policy.total.detach(), policy.tokens
    metrics = {
        "logps/chosen": total,
        "logps/chosen_per_token": total / tokens,
        "lengths/chosen": tokens.float(),
    }
    return LossOutput((Term(-policy.total, "token"),), metrics)


def sft_reward(policy: LogProbs, reference: LogProbs | None, config: SFTConfig) -> Tensor:
    """Return the log-prob per token, (N,): how held-out pairs are ranked, longer answers without a handicap."""
    return policy.mean


METHOD = Method(
    config=SFTConfig,
    data="targets",
    needs_reference=False,
    loss=sft_loss,
    paper="maximum likelihood; on pairs the Preferred-FT baseline of arXiv:2305.18290",
    form=lambda config: "sft: a mean over the step's scored tokens, so a long completion weighs more",
    last_turn=lambda config: config.turns == "last",
    reward=sft_reward,
)
