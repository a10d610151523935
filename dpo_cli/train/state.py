"""A run in progress: what the loop reads and moves forward, and what is kept of a step until somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from dpo_cli.engine.runtime import Runtime
from dpo_cli.methods._base import Method
from dpo_cli.metrics.reduce import Meter
from dpo_cli.metrics.speed import Speed
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference.source import ReferenceSource
from dpo_cli.train.pair_visits import Visits
from dpo_cli.types import TokenGroup

if TYPE_CHECKING:
    from dpo_cli.train.finish.best_weights import Selection


class Event(Protocol):
    """Something that happens between steps: a log line, an evaluation, a checkpoint."""

    def after_step(self, run: Run) -> None:
        """Look at `run.step` (steps done) and act if it is time."""


@dataclass(eq=False)
class Run:
    """A run in progress: what the loop reads and moves forward."""

    recipe: Recipe
    runtime: Runtime
    scorer: Scorer
    """The bare scorer: evaluation and saving use it."""
    model: nn.Module
    """The scorer as accelerate wrapped it: training calls it."""
    optimizer: torch.optim.Optimizer
    method: Method
    groups: Sequence[TokenGroup]
    """An epoch's examples."""
    lengths: Sequence[int]
    """Tokens that each of them costs on the scorer's path."""
    mismatched: Sequence[TokenGroup]
    """Each example's prompt with another prompt's completion; empty where the method asks for none."""
    reference: ReferenceSource | None
    total_steps: int
    token_budget: int
    events: Sequence[Event]
    speed: Speed
    meter: Meter = field(default_factory=Meter)
    step: int = 0
    """Optimizer steps done."""
    owes_eval: bool = False
    """Whether a stop put off the evaluation that was due after this step."""
    traces: list[Trace] = field(default_factory=list)
    """Of the steps that nobody has looked at yet; see `numerics.FiniteCheck`."""
    n_skipped: int = 0
    """Steps left out because they were not finite."""
    selection: Selection | None = None
    """Follows the evaluations, where pairs are held out and the recipe asks for it."""
    visits: Visits | None = None
    """Notes what every pair meets, where the recipe asks for a ledger."""
    has_halved: bool = False
    """Whether memory ran out once and the token budget was halved."""
    resized: Callable[[int], None] | None = None
    """Called with the new token budget."""

    @property
    def is_over(self) -> bool:
        """Whether no step is left, or the evaluations have run out of patience."""
        return self.step >= self.total_steps or (self.selection is not None and self.selection.is_over)


@dataclass(frozen=True, eq=False)
class Trace:
    """What is kept of a step until the next look: no host sync is spent on it."""

    step: int
    """From 0."""
    bins: Sequence[Sequence[int]]
    """This rank's micro-batches."""
    losses: Sequence[Tensor]
    """This rank's share of the loss, one a micro-batch, ()."""
    is_bad: Tensor
    """Whether the step was left out, on all ranks the same, ()."""
