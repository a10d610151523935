"""DPO: direct preference optimization. Rafailov et al. 2023, arXiv:2305.18290.

With `label_smoothing` it is conservative DPO (Mitchell 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term


@dataclass
class DPOConfig:
    """Knobs of DPO."""

    name: str = "dpo"
    """Selects the method."""
    beta: Annotated[float, Gt(0)] = 0.1
    """Scale of the implicit reward, in reward units per nat of log-ratio; usually 0.01 to 0.5. Larger keeps the policy closer to the reference."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Assumed share of pairs whose label is flipped, 0 to below 0.5. Larger trusts the labels less and bounds the margin."""


def dpo_loss(policy: LogProbs, reference: LogProbs | None, config: DPOConfig) -> LossOutput:
    """-(1 - e) log sigma(beta h) - e log sigma(-beta h), h = (log pi/pi_ref)(y_w) - (log pi/pi_ref)(y_l)   (eq. 7; e: cDPO).

    Args:
        policy: log-probs of chosen, rejected, chosen, ..., nats, (2B,), with gradient.
        reference: the same completions under the reference, (2B,).
        config: beta and label smoothing e.

    Returns:
        One loss a pair and the reward metrics; rewards are beta times the log-ratio.
    """
    import torch.nn.functional as F

    assert reference is not None, "DPO compares with a reference"
    log_ratio = policy.total - reference.total
    chosen, rejected = pairs(config.beta * log_ratio)
    margin, e = chosen - rejected, config.label_smoothing
    losses = -(1 - e) * F.logsigmoid(margin) - e * F.logsigmoid(-margin)
    chosen_ratio, rejected_ratio = pairs(log_ratio.detach())
    metrics = reward_metrics(chosen, rejected, policy)
    return LossOutput(
        (Term(losses),), {**metrics, "logratio/chosen": chosen_ratio, "logratio/rejected": rejected_ratio}
    )


METHOD = Method(
    config=DPOConfig,
    data="pairs",
    needs_reference=True,
    loss=dpo_loss,
    paper="Direct Preference Optimization, arXiv:2305.18290",
    at_reference=lambda config: math.log(2),
)
