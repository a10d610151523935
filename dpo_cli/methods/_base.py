"""What a method declares, and the rewards that every pairwise method reports.

No torch import at the top: recipes are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.errors import Problem
from dpo_cli.types import DataKind, LogProbs, LossOutput, Unit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Method:
    """A declaration: what the method eats and a pure loss over log-probs."""

    config: type
    """Dataclass of the method's knobs, each with a docstring; its `name` field is the method's name."""
    data: DataKind
    needs_reference: bool
    loss: Callable[[LogProbs, LogProbs | None, Any], LossOutput]
    """(policy, reference, config) -> LossOutput; completions in group order, N = 2B for pairs: chosen, rejected, chosen, ..."""
    paper: str
    """Title and arXiv number."""
    at_reference: Callable[[Any], float | None] | None = None
    """Config -> the loss where policy = reference, in closed form, or None where it has none: the self-test before step 1.
    None without a reference."""
    problems: Callable[[Any], list[Problem]] = lambda config: []
    """Config -> contradictions between its knobs, each placed at the dotted key to change (`method.loss`)."""


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split (2B,) values in group order into chosen (B,) and rejected (B,)."""
    return values[0::2], values[1::2]


def mean_loss(out: LossOutput, scored: LogProbs) -> Tensor:
    """Give the loss of these pairs alone, (): each term's mean over its own unit (pairs, or tokens of the chosen completions)."""
    import torch

    chosen_tokens, _ = pairs(scored.tokens)
    units: dict[Unit, int | Tensor] = {"example": len(chosen_tokens), "token": chosen_tokens.sum()}
    return torch.stack([term.weight * term.losses.sum() / units[term.unit] for term in out.terms]).sum()


def reward_metrics(chosen: Tensor, rejected: Tensor, policy: LogProbs) -> dict[str, Tensor]:
    """Give TRL's reward and log-prob metrics per pair, each (B,).

    `rewards/accuracies` is a strict `>`: ties count as wrong. `logps/*` are sums over completion tokens.
    """
    chosen, rejected = chosen.detach(), rejected.detach()
    chosen_logps, rejected_logps = pairs(policy.total.detach())
    chosen_tokens, rejected_tokens = pairs(policy.tokens)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
        "logps/chosen_per_token": chosen_logps / chosen_tokens,
        "logps/rejected_per_token": rejected_logps / rejected_tokens,
        "lengths/chosen": chosen_tokens.float(),
        "lengths/rejected": rejected_tokens.float(),
    }
