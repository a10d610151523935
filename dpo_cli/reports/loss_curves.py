"""A method's loss and gradient over the margin of one pair, for several betas: from the loss that trains, by autograd."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dpo_cli.methods._base import Method, mean_loss
from dpo_cli.reports.charts.chart import Chart, Range, Series
from dpo_cli.types import DataKind, LogProbs

TIMES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Betas that are shown beside the recipe's own: multiples of it."""
HALF = 40
"""Points on either side of margin 0."""
REACH = 4.0
"""The margin goes so far in reward units of the middle beta: sigma(4) is 0.98."""
LEVEL, FAR = -1.5, 2.8
"""Log-prob per token around which a loss without a reference is shown, and the margin that keeps both answers' below 0."""
NO_PAIRS: dict[DataKind, str] = {
    "rankings": "judges a whole ranking (of two answers as dpo does)",
    "labelled": "judges one labelled completion at a time",
    "targets": "imitates one completion",
}
"""What a loss reads that has no two completions to stand apart."""
STEEP = 20.0
"""A picture's axis ends at so many times the loss and the slope at margin 0: exponentials would flatten all else."""


@dataclass(frozen=True)
class Curve:
    """The loss over the margin with one beta."""

    beta: float | None
    """None for a method without one."""
    margin: list[float]
    loss: list[float]
    gradient: list[float]
    """Of the loss with respect to the margin."""

    @property
    def name(self) -> str:
        """What to call it."""
        return "the loss" if self.beta is None else f"beta {self.beta:g}"


@dataclass(frozen=True)
class Landscape:
    """What `dpo explain loss` shows."""

    form: str
    unit: str
    """What the margin is."""
    curves: list[Curve]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Point:
    loss: float
    by_chosen: float
    """Gradient with respect to the chosen completion's log-prob, or score."""
    by_rejected: float


def no_margin(method: Method, config: Any) -> str:
    """Return why there is no margin to look over; empty where there is one."""
    name = config.name
    if method.data != "pairs":
        return f"{name} {NO_PAIRS[method.data]}: its loss has no margin between two"
    at = _measure(method, config)
    if all(at(margin).by_rejected == 0 for margin in (-1.0, 0.0, 1.0)):
        return f"{method.form(config).partition(';')[0]}: the loss reads the chosen completion alone, so it has no margin"
    return ""


def landscape(method: Method, config: Any, betas: Sequence[float] = ()) -> Landscape:
    """Return loss and gradient over the margin, which chosen and rejected move apart by half of it each.

    Args:
        method: of pairs, with a margin (see `no_margin`).
        config: its knobs.
        betas: those to show; none: multiples of the config's own.
    """
    configs = [config]
    if "beta" in vars(config):
        shown = betas or [times * config.beta for times in TIMES]
        configs = [dataclasses.replace(config, beta=beta) for beta in sorted(shown)]
    middle = configs[len(configs) // 2]
    reach = REACH / vars(middle).get("beta", 1.0)
    if not method.needs_reference and not method.trains_head:
        reach = min(reach, FAR)
    curves = [_curve(method, each, reach) for each in configs]
    return Landscape(method.form(config), _unit(method, config), curves, _notes(method, config, reach))


def _curve(method: Method, config: Any, reach: float) -> Curve:
    at = _measure(method, config)
    margins = [reach * k / HALF for k in range(-HALF, HALF + 1)]
    points = [at(margin) for margin in margins]
    slopes = [(point.by_chosen - point.by_rejected) / 2 for point in points]
    return Curve(vars(config).get("beta"), margins, [point.loss for point in points], slopes)


def _measure(method: Method, config: Any, tokens: int = 1, shift: float = 0.0) -> Callable[[float], _Point]:
    """Return the map from a margin to the loss of one pair: alone in its micro-batch, for some losses sort theirs.

    `shift` moves both completions by so many nats, which a loss of the margin alone does not see.
    """
    level = 0.0 if method.needs_reference or method.trains_head else LEVEL * tokens
    counts = torch.full((2,), tokens)
    base = torch.full((2,), level, dtype=torch.float64)

    def at(margin: float) -> _Point:
        total = (base - shift + torch.tensor([margin / 2, -margin / 2])).requires_grad_()
        nothing = torch.zeros(1, dtype=torch.float64)
        policy = LogProbs(total, counts, public=total, prompt=nothing, prompt_tokens=torch.zeros(1))
        reference = LogProbs(base, counts, public=base) if method.needs_reference else None
        loss = mean_loss(method.loss(policy, reference, config), policy)
        chosen, rejected = torch.autograd.grad(loss, total)[0].tolist()
        return _Point(float(loss.detach()), chosen, rejected)

    return at


def _is_per_token(method: Method, config: Any) -> bool:
    """Return whether one margin means less in longer answers."""
    return _measure(method, config)(0.5).by_rejected != _measure(method, config, tokens=4)(0.5).by_rejected


def _unit(method: Method, config: Any) -> str:
    if method.trains_head:
        return "score of chosen minus rejected"
    what = "log-ratio to the reference" if method.needs_reference else "log-prob"
    per_token = " per token" if _is_per_token(method, config) else ""
    return f"{what} of chosen minus rejected, nats{per_token}"


def _notes(method: Method, config: Any, reach: float) -> list[str]:
    here, lower = _measure(method, config), _measure(method, config, shift=reach / 4)
    notes = []
    if any(abs(here(reach * share).loss - lower(reach * share).loss) > 1e-9 for share in (-0.5, 0.0, 0.5)):
        notes.append(
            "the loss reads each answer apart: here the chosen one goes up by half the margin, the rejected one down by as much"
        )
    if not method.needs_reference and not method.trains_head:
        notes.append(f"shown around {LEVEL:g} nats per token, answers of one length")
    return notes


def charts(found: Landscape) -> list[Chart]:
    """Return the pictures: loss over margin, gradient over margin."""
    pictures = []
    for title, name in (("Loss", "loss"), ("Gradient of the loss", "gradient")):
        series = [Series(each.name, each.margin, getattr(each, name)) for each in found.curves]
        pictures.append(Chart(title, found.unit, "", series, y_range=_shown(series, name == "loss")))
    return pictures


def _shown(series: Sequence[Series], is_loss: bool) -> Range | None:
    """Return what the y axis spans where a curve leaves the picture; None where all fit."""
    most = STEEP * max(abs(each.y[HALF]) + is_loss for each in series)
    values = [y for each in series for y in each.y]
    if most == 0 or max(map(abs, values)) <= most:
        return None
    return max(min(values), -most), min(max(values), most)
