"""DPO: direct preference optimization. Rafailov et al. 2023, arXiv:2305.18290; and the family of pairwise losses around it.

The losses themselves stand in `_pairwise.py`, each with its equation and paper.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt

from dpo_cli.errors import Problem
from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.methods._pairwise import LOSSES, SCORES, Divergence, LossName, PairValues
from dpo_cli.types import LogProbs, LossOutput, Term, Want

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class DPOConfig:
    """Knobs of DPO."""

    name: str = "dpo"
    """Selects the method."""
    loss: LossName | dict[LossName, Annotated[float, Gt(0)]] = "sigmoid"
    """A pairwise loss, or a mix as {name: weight, ...} with weights above 0 that are not normalised; a larger weight counts for more.
    `sft` is the NLL per chosen token: {sigmoid: 1, sft: 1} is RPO's mix."""
    beta: Annotated[float, Gt(0)] = 0.1
    """Scale of the implicit reward, in reward units per nat of log-ratio; usually 0.01 to 0.5. Larger keeps the policy closer to the reference."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Assumed share of pairs whose label is flipped, 0 to below 0.5; `sigmoid`, `robust`, `exo_pair` (needs it, 1e-3) and `aot*` read it.
    Larger trusts the labels less; it bounds the margin, but for `robust`, which pushes harder instead."""
    f_divergence: Divergence = "reverse_kl"
    """Divergence that keeps the policy near the reference, for losses of the margin only. Towards forward_kl a chosen answer that the
    policy makes unlikely costs more, exponentially in nats."""
    alpha: Annotated[float, Ge(0), Le(1)] = 0.5
    """Which `f_divergence: alpha`, 0 (forward KL) to 1 (reverse KL), as in TRL's f_alpha_divergence_coef. Larger is nearer to plain DPO."""
    tau: Annotated[float, Gt(0), Le(1)] = 0.05
    """Temperature of `discopop`'s change between its two losses, in reward units, above 0 to 1. Larger blends them more evenly."""
    ld_alpha: Annotated[float, Ge(0), Le(1)] | None = None
    """LD-DPO: what the loss counts of the tokens that the longer completion has beyond the shorter one's number, 0 to 1; null and 1
    are plain DPO. Smaller learns less from length."""
    wpo: bool = False
    """WPO: weight each pair by how likely the policy itself would be to write its completions, per token; `sft` in a mix is not weighted."""


def dpo_loss(policy: LogProbs, reference: LogProbs | None, config: DPOConfig) -> LossOutput:
    """Return one term a loss of `config.loss`; by default -ln sigma(beta h), h = (log pi/pi_ref)(y_w) - (log pi/pi_ref)(y_l)   (eq. 7).

    Args:
        policy: log-probs of chosen, rejected, chosen, ..., nats, (2B,), with gradient.
        reference: the same completions under the reference, (2B,).
        config: the losses and their knobs.

    Returns:
        The terms and the reward metrics; rewards are beta times the whole completion's log-ratio, whatever the divergence and `ld_alpha`.
    """
    assert reference is not None, "DPO compares with a reference"
    values = pair_values(desensitised(policy, config), desensitised(reference, config), config)
    likely = on_policy(policy) if config.wpo else 1.0
    terms = [
        Term(
            LOSSES[name].formula(values) * (likely if LOSSES[name].unit == "example" else 1.0),
            LOSSES[name].unit,
            weight,
        )
        for name, weight in weights(config).items()
    ]
    chosen_ratio, rejected_ratio = pairs((policy.total - reference.total).detach())
    metrics = reward_metrics(config.beta * chosen_ratio, config.beta * rejected_ratio, policy)
    return LossOutput(
        tuple(terms), {**metrics, "logratio/chosen": chosen_ratio, "logratio/rejected": rejected_ratio}
    )


def desensitised(values: LogProbs, config: DPOConfig) -> LogProbs:
    """Return sums in which tokens beyond the shorter completion's number count `ld_alpha`   (Liu et al. 2024, LD-DPO, arXiv:2409.06411, eq. 10)."""
    if config.ld_alpha is None:
        return values
    assert values.public is not None, "the scorer gives what `wants` asks for"
    return replace(values, total=values.public + config.ld_alpha * (values.total - values.public))


def on_policy(policy: LogProbs) -> Tensor | float:
    """Return each pair's weight c(y_w) c(y_l), c(y) = exp mean_t [ln p(y_t) - ln sum_v p(v)^2], (B,), without gradient.

    Zhou et al. 2024, WPO, arXiv:2406.11827, section 3.2. 1 where nothing is known of it: an evaluation judges all pairs alike.
    """
    if policy.confidence is None:
        return 1.0
    chosen, rejected = pairs(policy.confidence)
    return (chosen + rejected).exp()


def wants(config: DPOConfig) -> frozenset[Want]:
    """Return what LD-DPO and WPO read beside sums."""
    asked: set[Want] = {"public"} if config.ld_alpha is not None else set()
    return frozenset(asked | ({"confidence"} if config.wpo else set()))


def pair_values(policy: LogProbs, reference: LogProbs, config: DPOConfig) -> PairValues:
    """Return what the losses read, from (2B,) log-probs in group order."""
    log_ratio = policy.total - reference.total
    score = SCORES[config.f_divergence](log_ratio, config.alpha)
    chosen, rejected = pairs(config.beta * log_ratio)
    chosen_score, rejected_score = pairs(config.beta * score)
    chosen_mean, rejected_mean = pairs(config.beta * score / policy.tokens)
    chosen_logps, rejected_logps = pairs(policy.total)
    chosen_reference, rejected_reference = pairs(reference.total)
    return PairValues(
        chosen=chosen,
        rejected=rejected,
        margin=chosen_score - rejected_score,
        mean_margin=chosen_mean - rejected_mean,
        policy_margin=config.beta * (chosen_logps - rejected_logps),
        reference_margin=config.beta * (chosen_reference - rejected_reference),
        chosen_logps=chosen_logps,
        beta=config.beta,
        smoothing=config.label_smoothing,
        tau=config.tau,
    )


def weights(config: DPOConfig) -> dict[LossName, float]:
    """Return the weight of each loss of the mix; a single loss has weight 1."""
    return config.loss if isinstance(config.loss, dict) else {config.loss: 1.0}


def at_reference(config: DPOConfig) -> float | None:
    """Return the weighted sum of the losses where policy = reference, None where one of them has no closed form or pairs are weighted."""
    if config.wpo:
        return None
    total = 0.0
    for name, weight in weights(config).items():
        closed_form = LOSSES[name].at_reference
        if closed_form is None:
            return None
        total += weight * closed_form(config.beta, config.label_smoothing)
    return total


def problems(config: DPOConfig) -> list[Problem]:
    """List losses that there are not, and knobs that the losses cannot take or do not read."""
    mix = weights(config)
    unknown = [_unknown(name) for name in mix if name not in LOSSES]
    if unknown or not mix:
        return unknown or [
            Problem("method.loss", "'method.loss' is an empty mix", "{sigmoid: 1}, or a loss's name")
        ]
    return [
        *_smoothing(config, mix),
        *_divergence(config, mix),
        *_unread(config, mix),
        *_weighting(config, mix),
    ]


def _unknown(name: str) -> Problem:
    near = difflib.get_close_matches(name, LOSSES, 1)
    fix = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(LOSSES)}"
    return Problem(f"method.loss.{name}", f"'method.loss' holds an unknown loss {name[:100]!r}", fix)


def _smoothing(config: DPOConfig, mix: dict[LossName, float]) -> list[Problem]:
    if "exo_pair" not in mix or config.label_smoothing > 0:
        return []
    what = "'method.loss' is exo_pair, which is infinite at 'method.label_smoothing' 0"
    return [Problem("method.loss", what, "method.label_smoothing: 0.001")]


def _weighting(config: DPOConfig, mix: dict[LossName, float]) -> list[Problem]:
    """Name losses whose values are of no pair that a weight could belong to."""
    sorting = [name for name in mix if name in ("aot", "aot_unpaired")]
    if not config.wpo or not sorting:
        return []
    what = f"'method.wpo' weighs pairs, but {', '.join(sorting)} sorts them apart"
    return [Problem("method.wpo", what, "method.wpo: false, or another loss")]


def _divergence(config: DPOConfig, mix: dict[LossName, float]) -> list[Problem]:
    without = [name for name in mix if "f_divergence" not in LOSSES[name].reads]
    if config.f_divergence == "reverse_kl" or not without:
        return []
    what = (
        f"'method.f_divergence' is {config.f_divergence}, but {', '.join(without)} exists for reverse_kl only"
    )
    taking = [name for name, loss in LOSSES.items() if "f_divergence" in loss.reads]
    return [Problem("method.f_divergence", what, f"reverse_kl, or one of {', '.join(taking)}")]


def _unread(config: DPOConfig, mix: dict[LossName, float]) -> list[Problem]:
    """Name knobs that were moved away from their default and change nothing."""
    read = {knob for name in mix for knob in LOSSES[name].reads}
    read |= {"alpha"} if config.f_divergence == "alpha" else set()
    names, values, defaults = ", ".join(mix), vars(config), vars(DPOConfig())
    readers = {"label_smoothing": names, "tau": names, "alpha": f"f_divergence {config.f_divergence}"}
    return [
        Problem(
            f"method.{knob}",
            f"'method.{knob}' is {values[knob]:g}, but {reader} does not read it",
            f"method.{knob}: {defaults[knob]:g}",
        )
        for knob, reader in readers.items()
        if knob not in read and values[knob] != defaults[knob]
    ]


def form(config: DPOConfig) -> str:
    """Name the losses with their weights, what bends them, and the unit of the rewards."""
    losses = " + ".join(
        name if weight == 1 else f"{weight:g} {name}" for name, weight in weights(config).items()
    )
    bent = [f", label_smoothing {config.label_smoothing:g}"] if config.label_smoothing else []
    if config.f_divergence != "reverse_kl":
        coefficient = f" {config.alpha:g}" if config.f_divergence == "alpha" else ""
        bent.append(f", f_divergence {config.f_divergence}{coefficient}")
    bent += [f", ld_alpha {config.ld_alpha:g}"] if config.ld_alpha is not None else []
    bent += [", weighted by WPO"] if config.wpo else []
    return f"dpo, loss {losses}{''.join(bent)}; rewards include beta: {config.beta:g} times the log-ratio in nats"


METHOD = Method(
    config=DPOConfig,
    data="pairs",
    needs_reference=True,
    loss=dpo_loss,
    paper="Direct Preference Optimization, arXiv:2305.18290",
    form=form,
    at_reference=at_reference,
    problems=problems,
    wants=wants,
)
