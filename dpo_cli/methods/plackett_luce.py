"""Plackett-Luce DPO: a ranking of any length as one example. Rafailov et al. 2023, arXiv:2305.18290, appendix A.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from dpo_cli.methods._base import Method, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = -1e30
"""Reward of the places that a shorter ranking of the batch does not have: its exponential is 0, and its gradient too."""


@dataclass
class PlackettLuceConfig:
    """Knobs of Plackett-Luce DPO."""

    name: str = "plackett_luce"
    """Selects the method."""
    beta: Annotated[float, Gt(0)] = 0.1
    """Scale of the implicit reward, in reward units per nat of log-ratio; usually 0.01 to 0.5. Larger keeps the policy closer to the reference."""


def plackett_luce_loss(
    policy: LogProbs, reference: LogProbs | None, config: PlackettLuceConfig
) -> LossOutput:
    """-sum_k ln(exp r_k / sum_{j >= k} exp r_j), r = beta ln(pi/pi_ref), best first   (eq. 20); of two completions it is DPO's loss.

    Args:
        policy: log-probs of each group's completions, best first, nats, (N,), with gradient; `sizes` says how many of each.
        reference: the same completions under the reference, (N,).
        config: beta.

    Returns:
        One term a ranking, and the reward metrics: of the best as `chosen`, the mean over the others as `rejected`;
        `rewards/accuracies` is the share of a ranking's pairs in their order.
    """
    import torch

    assert reference is not None, "Plackett-Luce compares with a reference"
    sizes = policy.sizes or (2,) * (len(policy.total) // 2)
    log_ratio = policy.total - reference.total
    rewards, present = placed(config.beta * log_ratio, sizes)
    ahead = rewards.flip(1).logcumsumexp(1).flip(1)  # ln of the sum over a place and those behind it
    losses = (ahead - rewards).where(present, 0).sum(1)

    totals, tokens = (best_of(values.detach(), sizes) for values in (policy.total, policy.tokens))
    best_and_rest = LogProbs(torch.stack(totals, 1).flatten(), torch.stack(tokens, 1).flatten())
    metrics = reward_metrics(*best_of(config.beta * log_ratio.detach(), sizes), best_and_rest)
    metrics["rewards/accuracies"] = in_order(rewards.detach(), present)
    chosen_ratio, rejected_ratio = best_of(log_ratio.detach(), sizes)
    return LossOutput(
        (Term(losses),), {**metrics, "logratio/chosen": chosen_ratio, "logratio/rejected": rejected_ratio}
    )


def placed(values: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Give (N,) values by group and place, (B, K) for the longest group's K, and which of those places there are, (B, K) bool."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    table = pad_sequence(list(values.split(list(sizes))), batch_first=True, padding_value=ABSENT)
    places = torch.arange(max(sizes), device=values.device)
    return table, places < torch.tensor(sizes).to(values.device, non_blocking=True)[:, None]


def best_of(values: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Give the best completion's value of each group, (B,), and the mean of the others', (B,)."""
    table, present = placed(values.float(), sizes)
    rest = table.where(present, 0)[:, 1:].sum(1) / present[:, 1:].sum(1)
    return table[:, 0], rest


def in_order(rewards: Tensor, present: Tensor) -> Tensor:
    """Give the share of each ranking's pairs that the rewards, (B, K), put in its order, (B,); ties count as wrong."""
    both = (present[:, :, None] & present[:, None, :]).triu(1)
    right = (rewards[:, :, None] > rewards[:, None, :]) & both
    return right.sum((1, 2)) / both.sum((1, 2))


METHOD = Method(
    config=PlackettLuceConfig,
    data="rankings",
    needs_reference=True,
    loss=plackett_luce_loss,
    paper="Direct Preference Optimization, arXiv:2305.18290, appendix A.3",
    form=lambda config: (
        f"plackett_luce: whole rankings, as DPO on pairs; rewards include beta: {config.beta:g} times the log-ratio in nats"
    ),
)
