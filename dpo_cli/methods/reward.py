"""Reward model: a scalar head on the last token, trained to score the chosen completion above the rejected one. Bradley and Terry 1952.

Ouyang et al. 2022, InstructGPT, arXiv:2203.02155.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from annotated_types import Ge, Gt

from dpo_cli.errors import Problem
from dpo_cli.methods._base import Method, pairs, preference_metrics
from dpo_cli.types import LogProbs, LossOutput, Term, TokenGroup

LARGEST = 3.0
"""The larger of the two sets of margins in Llama 2's table 27, by how clear a preference is: 0, 1, 2, 3; the other is a third of it."""


@dataclass
class RewardConfig:
    """Knobs of the reward model."""

    name: str = "reward"
    """Selects the method."""
    use_margin: bool = False
    """Ask each pair's scores to differ by more, the better the data say the chosen answer is (column `margin`, or the difference of two
    scores). Off, such columns do not touch the loss, and the first loss is about ln 2."""
    margin_scale: Annotated[float, Gt(0)] = 1.0
    """Margin per unit of the data's own; choose it so that the largest margin is about 1 to 3. Larger asks for more distance."""
    centering: Annotated[float, Ge(0)] = 0.0
    """Weight of the pull of each pair's mean score towards 0, usually 0 or 0.01; without it only differences of scores mean anything."""


def reward_loss(policy: LogProbs, reference: LogProbs | None, config: RewardConfig) -> LossOutput:
    """-ln sigma(r_w - r_l - m) + c (r_w + r_l)^2   (InstructGPT, eq. 1).

    With `use_margin` m = `margin_scale` times the data's margin, else 0   (Llama 2, arXiv:2307.09288, eq. 2; there m is a step function of
    the annotators' four grades, here the data's own number). TRL and OpenRLHF take the same number as it is, scale 1, from a column `margin`.
    The centering c is Eisenstein et al.'s (2023, arXiv:2312.09244).

    Args:
        policy: `total` holds the scores r of chosen, rejected, chosen, ..., (2B,), with gradient; `margins`, (B,), what the data state;
            None is 0, as where a model is measured on rows without.
        reference: not used.
        config: whether and how m is taken, c.

    Returns:
        Both terms and the metrics of preference; rewards are the scores themselves.
    """
    import torch.nn.functional as F

    chosen, rejected = pairs(policy.total)
    gap = chosen - rejected
    if config.use_margin and policy.margins is not None:
        gap = gap - config.margin_scale * policy.margins
    terms = [Term(-F.logsigmoid(gap))]
    if config.centering > 0:
        terms.append(Term((chosen + rejected).square(), weight=config.centering))
    return LossOutput(tuple(terms), preference_metrics(chosen, rejected, policy))


def form(config: RewardConfig) -> str:
    """Return where the score is read, what it is drawn to and by how far."""
    margin = f" less a margin ({config.margin_scale:g} times the data's)" if config.use_margin else ""
    centered = f", centered by {config.centering:g}" if config.centering else ", of any mean"
    return f"reward: a scalar head on each row's last token, Bradley-Terry on differences of scores{margin}{centered}"


def problems(config: RewardConfig) -> list[Problem]:
    """Name a scale of nothing."""
    if config.use_margin or config.margin_scale == RewardConfig.margin_scale:
        return []
    what = f"'method.margin_scale' is {config.margin_scale:g}, but without 'method.use_margin' there is no margin"
    return [Problem("method.margin_scale", what, "method.use_margin: true, or method.margin_scale: 1")]


def advice(config: RewardConfig, groups: Sequence[TokenGroup]) -> list[str]:
    """Return how large the margins are, or that the data have some that are not used."""
    stated = [group.margin for group in groups if group.margin is not None]
    if not stated:
        return []
    if not config.use_margin:
        what = f"{len(stated):,} of {len(groups):,} training pairs state a margin or two scores: not used"
        return [f"{what}; method.use_margin=true subtracts it from the difference of scores"]
    margins = [config.margin_scale * each for each in stated]
    line = f"margins (smallest / median / largest): {min(margins):.3g} / {median(margins):.3g} / {max(margins):.3g}"
    if max(margins) <= LARGEST:
        return [line]
    better = config.margin_scale / max(margins)
    return [
        f"{line}; Llama 2's end at 1 or {LARGEST:g}: method.margin_scale={better:.2g} makes the largest 1"
    ]


METHOD = Method(
    config=RewardConfig,
    data="pairs",
    needs_reference=False,
    loss=reward_loss,
    paper="Bradley-Terry reward model, as in InstructGPT, arXiv:2203.02155",
    form=form,
    problems=problems,
    advice=advice,
    margins=lambda config: config.use_margin,
    trains_head=True,
)
