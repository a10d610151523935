"""KTO: completions that are wanted or not, each judged against the policy's drift. Ethayarajh et al. 2024, arXiv:2402.01306."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt

from dpo_cli.methods._base import Method, StepContext, wins
from dpo_cli.types import LogProbs, LossOutput, Term, TokenGroup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class KTOConfig:
    """Knobs of KTO."""

    name: str = "kto"
    """Selects the method."""
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """`kto` judges a completion against the policy's drift z; `apo_zero_unpaired` against the reference alone, and scores no mismatched ones."""
    beta: Annotated[float, Gt(0)] = 0.1
    """Scale of the implicit reward, per nat of log-ratio; usually 0.01 to 0.5. Larger keeps the policy closer to the reference."""
    desirable_weight: Annotated[float, Gt(0)] = 1.0
    """Weight of a wanted completion's loss, above 0; times their count 1 to 4/3 of the unwanted ones'. Larger learns more from thumbs up."""
    undesirable_weight: Annotated[float, Gt(0)] = 1.0
    """Weight of an unwanted completion's loss, above 0. Larger learns more from thumbs down."""


def kto_prepare(context: StepContext, config: KTOConfig) -> Tensor | None:
    """Return the drift z of the whole step before clamping, (): the mean log-ratio of mismatched completions, in nats, without gradient.

    A sum of log-probs for each, not per token, and no beta; over all micro-batches and ranks (section 4.1: a batch estimate of the KL).
    None where the loss has no z.
    """
    return context.mean_mismatched_log_ratio() if config.loss == "kto" else None


def kto_loss(
    policy: LogProbs, reference: LogProbs | None, config: KTOConfig, drift: Tensor | None = None
) -> LossOutput:
    """w_D (1 - sigma(beta (D - z))) if wanted, w_U (1 - sigma(beta (z - D))) if not; D: log-ratio, z = max(0, drift)   (eq. 7).

    `apo_zero_unpaired` is the same with z = 0: w_D (1 - sigma(beta D)) and w_U sigma(beta D)   (the two halves of APO-zero,
    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7, each on its own completions).

    Args:
        policy: log-probs and labels of completions, nats, (B,), with gradient.
        reference: the same completions under the reference, (B,).
        config: beta and class weights.
        drift: from `kto_prepare`, (); None is z = 0: without a z, and in an evaluation.

    Returns:
        One loss a completion; rewards are beta times the log-ratio, each counted under its own label only, and `rewards/auc`
        says how well they tell the labels apart, whatever z is.
    """
    import torch

    assert reference is not None and policy.labels is not None, (
        "KTO compares labelled completions with a reference"
    )
    log_ratio = policy.total - reference.total
    wanted = policy.labels
    z = torch.zeros_like(log_ratio[:1]) if drift is None else drift.detach().clamp(min=0).reshape(1)
    missed = torch.sigmoid(config.beta * torch.where(wanted, z - log_ratio, log_ratio - z))
    losses = torch.where(wanted, config.desirable_weight * missed, config.undesirable_weight * missed)
    rewards = config.beta * log_ratio.detach()
    metrics = _metrics(policy, rewards, config.beta * z)
    if drift is not None:
        metrics["kto/kl"] = drift.detach().expand_as(rewards)
        metrics["kto/kl_clamped_frac"] = (drift < 0).float().expand_as(rewards)
    return LossOutput((Term(losses),), metrics, {"rewards/auc": (rewards, wanted)})


def _metrics(policy: LogProbs, rewards: Tensor, drift: Tensor) -> dict[str, Tensor]:
    """Return metrics per completion, (B,); nan where a completion says nothing of a metric, which then does not count it.

    A completion is right where its reward lies on its label's side of `drift`, (1,) in reward units; at it, half.
    """
    import torch

    assert policy.labels is not None
    wanted, nothing, total = policy.labels, torch.full_like(rewards, torch.nan), policy.total.detach()
    return {
        "rewards/chosen": torch.where(wanted, rewards, nothing),
        "rewards/rejected": torch.where(wanted, nothing, rewards),
        "rewards/accuracies": wins(torch.where(wanted, rewards - drift, drift - rewards)),
        "logps/chosen": torch.where(wanted, total, nothing),
        "logps/rejected": torch.where(wanted, nothing, total),
        "kto/wanted_frac": wanted.float(),
    }


def kto_reward(policy: LogProbs, reference: LogProbs | None, config: KTOConfig) -> Tensor:
    """Return beta times the log-ratio of each completion, (N,)."""
    assert reference is not None, "KTO compares with a reference"
    return config.beta * (policy.total - reference.total)


def kto_advice(config: KTOConfig, groups: Sequence[TokenGroup]) -> list[str]:
    """Return where the class weights leave the paper's range for these data (eq. 8: w_D n_D / (w_U n_U) in [1, 4/3])."""
    n_wanted = sum(bool(group.label) for group in groups)
    n_unwanted = len(groups) - n_wanted
    if not n_wanted or not n_unwanted:
        kind = "wanted" if n_wanted else "unwanted"
        return [f"every completion is {kind}: KTO has nothing to tell apart"]
    ratio = config.desirable_weight * n_wanted / (config.undesirable_weight * n_unwanted)
    if 1 <= ratio <= 4 / 3:
        return []
    better = config.undesirable_weight * n_unwanted / n_wanted
    return [
        f"{n_wanted:,} wanted and {n_unwanted:,} unwanted completions: weight times count is {ratio:.2f} to 1, KTO's paper advises 1 to 1.33;"
        f" method.desirable_weight={better:.3g} to {better * 4 / 3:.3g} is in that range"
    ]


_FORMS = {
    "kto": "z, the policy's drift, is one mean over the step and all ranks (TRL: over each micro-batch)",
    "apo_zero_unpaired": "loss apo_zero_unpaired, against the reference alone: no z, no mismatched completions",
}


METHOD = Method(
    config=KTOConfig,
    data="labelled",
    needs_reference=True,
    loss=kto_loss,
    paper="KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306",
    form=lambda config: f"kto: {_FORMS[config.loss]}",
    mismatched=lambda config: config.loss == "kto",
    prepare=kto_prepare,
    reward=kto_reward,
    advice=kto_advice,
)
