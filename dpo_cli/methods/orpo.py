"""ORPO: fine-tuning on the chosen completion with a penalty on the odds of the rejected one, no reference. Hong et al. 2024, arXiv:2403.07691."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt

from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

MAX_MEAN = -1e-6
"""Mean log-prob, nats, above which a completion counts as certain: the odds of probability 1 are infinite."""


@dataclass
class ORPOConfig:
    """Knobs of ORPO."""

    name: str = "orpo"
    """Selects the method."""
    beta: Annotated[float, Gt(0)] = 0.1
    """The paper's lambda: weight of the odds-ratio term beside the NLL, without unit; usually 0.1 to 1. Larger separates pairs harder."""
    nll_on: Literal["completion", "all"] = "completion"
    """Tokens that the NLL is a mean over: the chosen completion's, or the prompt's too, as in TRL and the authors' code."""


def orpo_loss(policy: LogProbs, reference: LogProbs | None, config: ORPOConfig) -> LossOutput:
    """NLL(y_w) - beta ln sigma(ln odds(y_w) - ln odds(y_l)), odds = p/(1 - p), p = exp(mean log-prob per token)   (eq. 6 and 7).

    The NLL is the mean over the step's chosen completion tokens; with `nll_on: all` over them and their prompts' tokens behind the
    first, which is TRL's. An evaluation judges both by the same.

    Args:
        policy: log-probs of chosen, rejected, chosen, ..., nats, (2B,), with gradient; those of the prompts where the NLL takes them.
        reference: not used.
        config: beta and the NLL's span.

    Returns:
        Both terms and the reward metrics (rewards are beta times the mean log-prob), `log_odds_chosen` (log of the odds ratio),
        `log_odds_ratio` (its ln sigma) and `nll` (nats per chosen token, of each pair).
    """
    import torch.nn.functional as F

    chosen_mean, rejected_mean = pairs(policy.mean)
    chosen_odds, rejected_odds = pairs(log_odds(policy.mean))
    ratio = F.logsigmoid(chosen_odds - rejected_odds)
    metrics = {
        **reward_metrics(config.beta * chosen_mean, config.beta * rejected_mean, policy),
        "log_odds_chosen": (chosen_odds - rejected_odds).detach(),
        "log_odds_ratio": ratio.detach(),
        "nll": -chosen_mean.detach(),
    }
    return LossOutput((_nll(policy, config), Term(-ratio, "example", config.beta)), metrics)


def _nll(policy: LogProbs, config: ORPOConfig) -> Term:
    chosen, _ = pairs(policy.total)
    if config.nll_on == "completion":
        return Term(-chosen, "token")
    assert policy.prompt is not None, "the scorer gives what `wants` asks for"
    return Term(-(chosen + policy.prompt), "sequence_token")


def log_odds(mean: Tensor) -> Tensor:
    """Return ln(p / (1 - p)) of p = exp(mean), clamped below p = 1; expm1 keeps 1 - p exact where p is near 1."""
    mean = mean.clamp(max=MAX_MEAN)
    return mean - (-mean.expm1()).log()


_SPANS = {
    "completion": "the chosen completion (TRL pools the prompt's tokens too)",
    "all": "prompt and chosen completion, as TRL",
}


METHOD = Method(
    config=ORPOConfig,
    data="pairs",
    needs_reference=False,
    loss=orpo_loss,
    paper="ORPO, arXiv:2403.07691",
    wants=lambda config: frozenset({"prompt"} if config.nll_on == "all" else ()),
    form=lambda config: f"orpo: NLL over {_SPANS[config.nll_on]}; rewards are beta * log-prob per token",
)
