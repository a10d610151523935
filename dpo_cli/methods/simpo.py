"""SimPO: the length-normalised log-prob is the reward, no reference. Meng et al. 2024, arXiv:2405.14734."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from dpo_cli.errors import Problem
from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term


@dataclass
class SimPOConfig:
    """Knobs of SimPO."""

    name: str = "simpo"
    """Selects the method."""
    beta: Annotated[float, Gt(0)] = 2.0
    """Scale of the reward, in reward units per nat of mean log-prob; usually 2 to 10. Larger separates pairs harder."""
    gamma: Annotated[float, Ge(0)] = 1.0
    """Target margin in reward units, usually 0.5 to 1.5. Larger asks for more distance."""
    gamma_beta_ratio: Annotated[float, Ge(0)] | None = None
    """The target as a share of beta, as SimPO's own repository states it (0.25 to 0.5), in place of gamma; null uses gamma."""


def target(config: SimPOConfig) -> float:
    """Return gamma in reward units, stated as such or as a share of beta."""
    return config.gamma if config.gamma_beta_ratio is None else config.gamma_beta_ratio * config.beta


def simpo_loss(policy: LogProbs, reference: LogProbs | None, config: SimPOConfig) -> LossOutput:
    """-log sigma(beta (mean_w - mean_l) - gamma)   (eq. 6; mean_w: mean log-prob of the chosen completion's tokens, nats).

    Args:
        policy: log-probs of chosen, rejected, chosen, ..., (2B,), with gradient.
        reference: not used.
        config: beta and the target.

    Returns:
        One loss a pair and the reward metrics; rewards are beta times the mean log-prob.
    """
    import torch.nn.functional as F

    chosen, rejected = pairs(config.beta * policy.mean)
    losses = -F.logsigmoid(chosen - rejected - target(config))
    return LossOutput((Term(losses),), reward_metrics(chosen, rejected, policy))


def form(config: SimPOConfig) -> str:
    """Name the target in both of its units, and that of the rewards."""
    gamma = target(config)
    return f"simpo: target margin gamma {gamma:g} = gamma_beta_ratio {gamma / config.beta:g}; rewards are beta times log-prob per token"


def problems(config: SimPOConfig) -> list[Problem]:
    """Name two targets at once; a gamma at its default is none that somebody set."""
    if config.gamma_beta_ratio is None or config.gamma == SimPOConfig.gamma:
        return []
    what = f"'method.gamma' is {config.gamma:g} and 'method.gamma_beta_ratio' {config.gamma_beta_ratio:g}: two targets"
    return [Problem("method.gamma_beta_ratio", what, "remove one (`~method.gamma` as an override)")]


METHOD = Method(
    config=SimPOConfig,
    data="pairs",
    needs_reference=False,
    loss=simpo_loss,
    paper="SimPO, arXiv:2405.14734",
    form=form,
    problems=problems,
)
