"""Plackett-Luce DPO: a ranking of any length as one example. Rafailov et al. 2023, arXiv:2305.18290, appendix A.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from dpo_cli.methods._base import Method, reward_metrics, wins
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

    facts = torch.stack([log_ratio.detach(), policy.total.detach(), policy.tokens.to(log_ratio.dtype)], 1)
    best, rest = best_and_rest(facts, sizes, present)
    ratios, totals, tokens = torch.stack([best, rest], 1).unbind(2)  # (B, 2) each, as of pairs
    chosen_ratio, rejected_ratio = ratios.unbind(1)
    as_pairs = LogProbs(totals.flatten(), tokens.flatten())
    metrics = {
        **reward_metrics(config.beta * chosen_ratio, config.beta * rejected_ratio, as_pairs),
        "rewards/accuracies": in_order(rewards.detach(), present),
        "logratio/chosen": chosen_ratio,
        "logratio/rejected": rejected_ratio,
    }
    return LossOutput((Term(losses),), metrics)


def placed(values: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (N,) values by group and place, (B, K) for the longest group's K, and which of those places there are, (B, K) bool."""
    import torch

    table = _by_group(values, sizes)
    places = torch.arange(max(sizes), device=values.device)
    return table, places < torch.tensor(sizes).to(values.device, non_blocking=True)[:, None]


def best_and_rest(values: Tensor, sizes: Sequence[int], present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (N, F) values of the best completion of each group, (B, F), and the mean of the others', (B, F)."""
    table, others = _by_group(values, sizes), present[:, 1:, None]
    return table[:, 0], table[:, 1:].where(others, 0).sum(1) / others.sum(1)


def _by_group(values: Tensor, sizes: Sequence[int]) -> Tensor:
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(list(values.split(list(sizes))), batch_first=True, padding_value=ABSENT)


def in_order(rewards: Tensor, present: Tensor) -> Tensor:
    """Return the share of each ranking's pairs that the rewards, (B, K), put in its order, (B,); ties count half."""
    both = (present[:, :, None] & present[:, None, :]).triu(1)
    right = wins(rewards[:, :, None] - rewards[:, None, :]) * both
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
