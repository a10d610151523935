"""IPO: the margin is drawn to a target instead of growing without end. Azar et al. 2023, arXiv:2310.12036."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term


@dataclass
class IPOConfig:
    """Knobs of IPO."""

    name: str = "ipo"
    """Selects the method."""
    beta: Annotated[float, Gt(0)] = 0.1
    """The paper's tau: the target of h is 1 / (2 beta), in nats (5 at 0.1); usually 0.01 to 1. Larger keeps the policy closer to the reference."""
    length_normalize: bool = False
    """Take h per token (true: the target is 1 / (2 beta) nats per token, so beta must be larger) or over whole completions (false)."""


def target(config: IPOConfig) -> float:
    """Return the margin that h is drawn to: 1 / (2 beta), in nats, or nats per token with `length_normalize`."""
    return 1 / (2 * config.beta)


def ipo_loss(policy: LogProbs, reference: LogProbs | None, config: IPOConfig) -> LossOutput:
    """(h - 1/(2 beta))^2, h = (log pi/pi_ref)(y_w) - (log pi/pi_ref)(y_l)   (eq. 17).

    h is over summed log-probs, as in the paper; with `length_normalize` over means per token, as TRL takes it.

    Args:
        policy: log-probs of chosen, rejected, chosen, ..., nats, (2B,), with gradient.
        reference: the same completions under the reference, (2B,).
        config: beta and whether h is per token.

    Returns:
        One loss a pair, the reward metrics (rewards are beta times the summed log-ratio in both forms), `ipo/gap` (h, nats) and
        `ipo/past_target` (share of pairs whose h is past the target).
    """
    assert reference is not None, "IPO compares with a reference"
    log_ratio = policy.total - reference.total
    chosen_ratio, rejected_ratio = pairs(log_ratio)
    chosen_mean, rejected_mean = pairs(log_ratio / policy.tokens)
    gap = chosen_mean - rejected_mean if config.length_normalize else chosen_ratio - rejected_ratio
    goal = target(config)
    metrics = {
        **reward_metrics(config.beta * chosen_ratio, config.beta * rejected_ratio, policy),
        "logratio/chosen": chosen_ratio.detach(),
        "logratio/rejected": rejected_ratio.detach(),
        "ipo/gap": gap.detach(),
        "ipo/past_target": (gap.detach() > goal).float(),
    }
    return LossOutput((Term((gap - goal).square()),), metrics)


def form(config: IPOConfig) -> str:
    """Name the form of h, over which one beta means different targets, and the target."""
    if config.length_normalize:
        return f"ipo per token (the form that TRL takes, not the paper's): target margin {target(config):g} nats per token"
    return f"ipo on sums (the paper's form): target margin {target(config):g} nats"


METHOD = Method(
    config=IPOConfig,
    data="pairs",
    needs_reference=True,
    loss=ipo_loss,
    paper="IPO: A General Theoretical Paradigm to Understand Learning from Human Preferences, arXiv:2310.12036",
    form=form,
    at_reference=lambda config: 0.25 / config.beta**2,
)
