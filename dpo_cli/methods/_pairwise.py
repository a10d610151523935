"""The pairwise losses of DPO's family: a table of pure functions, one value a pair.

Legend: B pairs; D = log pi(y|x) - log pi_ref(y|x), nats, summed over the completion; r = beta D the reward, s the f-divergence's score of D
(reverse KL: D itself), m = beta (s_w - s_l) the margin, e the label smoothing; _w chosen, _l rejected; sigma the logistic function.
No torch import at the top: recipes are checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpo_cli.types import Unit

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal[
    "sigmoid",
    "robust",
    "hinge",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
    "sft",
]
Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

MAX_EXPONENT = 80.0
"""Where exp stops growing in a divergence's score: fp32 ends at exp(88.7), and margins are differences of two scores."""


@dataclass(frozen=True, eq=False)
class PairValues:
    """What the losses read of B pairs; tensors are (B,), with gradient where they hold the policy."""

    chosen: Tensor
    """r_w, in reward units."""
    rejected: Tensor
    """r_l, in reward units."""
    margin: Tensor
    """m, in reward units."""
    mean_margin: Tensor
    """beta (s_w / n_w - s_l / n_l), n the scored tokens of a completion."""
    policy_margin: Tensor
    """beta (log pi(y_w|x) - log pi(y_l|x)): the policy alone."""
    reference_margin: Tensor
    """The same of the reference."""
    chosen_logps: Tensor
    """log pi(y_w|x), nats."""
    beta: float
    smoothing: float
    """e."""
    tau: float


@dataclass(frozen=True)
class PairLoss:
    """A row of the table."""

    formula: Callable[[PairValues], Tensor]
    at_reference: Callable[[float, float], float] | None
    """(beta, e) -> the loss where policy = reference; None where it has no closed form."""
    reads: frozenset[str] = frozenset()
    """Knobs beside beta that the loss reads; `f_divergence` also where it changes nothing but does no harm in a mix."""
    unit: Unit = "example"


def log_sigmoid(x: Tensor) -> Tensor:
    """Return ln sigma(x) without overflow."""
    import torch.nn.functional as F

    return F.logsigmoid(x)


def power_score(log_ratio: Tensor, alpha: float) -> Tensor:
    """(u^(alpha - 1) - 1) / (alpha - 1), u = pi/pi_ref   (alpha-divergence; alpha 1: log u, reverse KL; alpha 0: 1 - 1/u, forward KL).

    Wang et al. 2023, f-DPO, arXiv:2309.16240. The exponent is clamped: a pair beyond it has no gradient.
    """
    if alpha == 1:
        return log_ratio
    return ((alpha - 1) * log_ratio).clamp(max=MAX_EXPONENT).expm1() / (alpha - 1)


def js_score(log_ratio: Tensor) -> Tensor:
    """Ln(2 u / (1 + u)), u = pi/pi_ref   (Jensen-Shannon; f-DPO, arXiv:2309.16240)."""
    return math.log(2) + log_sigmoid(log_ratio)


SCORES: dict[Divergence, Callable[[Tensor, float], Tensor]] = {
    "reverse_kl": lambda log_ratio, alpha: log_ratio,
    "forward_kl": lambda log_ratio, alpha: power_score(log_ratio, 0.0),
    "js": lambda log_ratio, alpha: js_score(log_ratio),
    "alpha": power_score,
}
"""(D, alpha) -> s. Only in s_w - s_l does the partition function cancel, so only losses of the margin take another than reverse KL."""


def smoothed(margin: Tensor, smoothing: float) -> Tensor:
    """-(1 - e) ln sigma(m) - e ln sigma(-m)   (Mitchell 2023, conservative DPO; e = 0: Rafailov et al. 2023, arXiv:2305.18290, eq. 7)."""
    return -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)


def sigmoid(v: PairValues) -> Tensor:
    """-(1 - e) ln sigma(m) - e ln sigma(-m)   (DPO; with e conservative DPO)."""
    return smoothed(v.margin, v.smoothing)


def robust(v: PairValues) -> Tensor:
    """[-(1 - e) ln sigma(m) + e ln sigma(-m)] / (1 - 2e)   (Chowdhury et al. 2024, robust DPO, arXiv:2403.00409).

    Unbiased for labels that are flipped with probability e; falls below zero for large m.
    """
    e = v.smoothing
    return (-(1 - e) * log_sigmoid(v.margin) + e * log_sigmoid(-v.margin)) / (1 - 2 * e)


def hinge(v: PairValues) -> Tensor:
    """max(0, 1 - m)   (SLiC's hinge over log-ratios: Liu et al. 2023, RSO, arXiv:2309.06657)."""
    return (1 - v.margin).relu()


def exo_pair(v: PairValues) -> Tensor:
    """KL(p || q), p = (sigma(m), sigma(-m)), q = (1 - e, e)   (Ji et al. 2024, EXO, arXiv:2402.00856, eq. 16)."""
    m, e = v.margin, v.smoothing
    chosen = m.sigmoid() * (log_sigmoid(m) - math.log1p(-e))
    return chosen + (-m).sigmoid() * (log_sigmoid(-m) - math.log(e))


def nca_pair(v: PairValues) -> Tensor:
    """-ln sigma(r_w) - 1/2 ln sigma(-r_w) - 1/2 ln sigma(-r_l)   (Chen et al. 2024, NCA, arXiv:2402.05369)."""
    return -log_sigmoid(v.chosen) - 0.5 * log_sigmoid(-v.chosen) - 0.5 * log_sigmoid(-v.rejected)


def bco_pair(v: PairValues) -> Tensor:
    """-ln sigma(r_w) - ln sigma(-r_l)   (Jung et al. 2024, BCO, arXiv:2404.04656, on pairs, without its running reward shift)."""
    return -log_sigmoid(v.chosen) - log_sigmoid(-v.rejected)


def sppo_hard(v: PairValues) -> Tensor:
    """(D_w - 1/(2 beta))^2 + (D_l + 1/(2 beta))^2   (Wu et al. 2024, SPPO, arXiv:2405.00675, eq. 4.7 with win probabilities 1 and 0).

    In code with D = r / beta. On sums of log-probs.
    """
    return ((v.chosen - 0.5).square() + (v.rejected + 0.5).square()) / v.beta**2


def aot(v: PairValues) -> Tensor:
    """Conservative DPO of a_(i) - b_(i), a the policy's and b the reference's beta-scaled log-ratios of chosen to rejected, each sorted.

    Melnyk et al. 2024, AOT, arXiv:2406.05882. Sorts within the micro-batch, as the paper within a batch: here alone the gradient follows
    how a step is cut into micro-batches, and a micro-batch of one pair is plain DPO.
    """
    return smoothed(v.policy_margin.sort().values - v.reference_margin.sort().values, v.smoothing)


def aot_unpaired(v: PairValues) -> Tensor:
    """Conservative DPO of r_w(i) - r_l(i), both rewards sorted   (Melnyk et al. 2024, AOT for unpaired rows, arXiv:2406.05882).

    Sorts within the micro-batch, with the consequence that `aot` names.
    """
    return smoothed(v.chosen.sort().values - v.rejected.sort().values, v.smoothing)


def apo_zero(v: PairValues) -> Tensor:
    """1 - sigma(r_w) + sigma(r_l)   (D'Oosterlinck et al. 2024, APO, arXiv:2408.06266, eq. 7: chosen answers better than the policy's own)."""
    return (-v.chosen).sigmoid() + v.rejected.sigmoid()


def apo_down(v: PairValues) -> Tensor:
    """sigma(r_w) + 1 - sigma(r_w - r_l)   (D'Oosterlinck et al. 2024, APO, arXiv:2408.06266, eq. 8: chosen answers worse than the policy's own)."""
    return v.chosen.sigmoid() + (v.rejected - v.chosen).sigmoid()


def discopop(v: PairValues) -> Tensor:
    """-(1 - g) ln sigma(m) + g exp(-m), g = sigma(m / tau)   (Lu et al. 2024, DiscoPOP, arXiv:2406.08414, eq. 5).

    Not convex: with tau below 0.102 a step from m = 0 lowers the margin, at 0.05 to a local minimum at m = -0.12.
    g exp(-m) is taken as exp(ln g - m): exp(-m) alone overflows where g is zero.
    """
    m = v.margin
    return -(-m / v.tau).sigmoid() * log_sigmoid(m) + (log_sigmoid(m / v.tau) - m).exp()


def sigmoid_norm(v: PairValues) -> Tensor:
    """-ln sigma(beta (s_w / n_w - s_l / n_l))   (length-normalised DPO: Lambert et al. 2024, Tulu 3, arXiv:2411.15124)."""
    return -log_sigmoid(v.mean_margin)


def sft(v: PairValues) -> Tensor:
    """-log pi(y_w|x), over the step's chosen tokens   (the NLL part of a mix such as RPO's: Pang et al. 2024, arXiv:2404.19733).

    One mean over all tokens of the step; that paper divides each completion by its own length first.
    """
    return -v.chosen_logps


def _exo_at_reference(beta: float, e: float) -> float:
    return -math.log(2) - 0.5 * math.log1p(-e) - 0.5 * math.log(e)


_SMOOTH, _DIVERGE = "label_smoothing", "f_divergence"

LOSSES: dict[LossName, PairLoss] = {
    "sigmoid": PairLoss(sigmoid, lambda beta, e: math.log(2), frozenset({_SMOOTH, _DIVERGE})),
    "robust": PairLoss(robust, lambda beta, e: math.log(2), frozenset({_SMOOTH, _DIVERGE})),
    "hinge": PairLoss(hinge, lambda beta, e: 1.0, frozenset({_DIVERGE})),
    "exo_pair": PairLoss(exo_pair, _exo_at_reference, frozenset({_SMOOTH, _DIVERGE})),
    "nca_pair": PairLoss(nca_pair, lambda beta, e: 2 * math.log(2)),
    "bco_pair": PairLoss(bco_pair, lambda beta, e: 2 * math.log(2)),
    "sppo_hard": PairLoss(sppo_hard, lambda beta, e: 0.5 / beta**2),
    "aot": PairLoss(aot, lambda beta, e: math.log(2), frozenset({_SMOOTH})),
    "aot_unpaired": PairLoss(aot_unpaired, lambda beta, e: math.log(2), frozenset({_SMOOTH})),
    "apo_zero": PairLoss(apo_zero, lambda beta, e: 1.0),
    "apo_down": PairLoss(apo_down, lambda beta, e: 1.0),
    "discopop": PairLoss(discopop, lambda beta, e: 0.5 * (math.log(2) + 1), frozenset({_DIVERGE, "tau"})),
    "sigmoid_norm": PairLoss(sigmoid_norm, lambda beta, e: math.log(2), frozenset({_DIVERGE})),
    "sft": PairLoss(sft, None, frozenset({_DIVERGE}), unit="token"),
}
