"""A run of the training loop on given token groups, without data, store or folders: the step is the product's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dpo_cli import methods
from dpo_cli.engine.runtime import Runtime
from dpo_cli.metrics.speed import Speed
from dpo_cli.modeling.scorer import Path as RowPath
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.load import load
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.train.choices import lengths_of
from dpo_cli.train.optim import build_optimizer
from dpo_cli.train.state import Run
from dpo_cli.types import TokenGroup


def a_run(
    folder: Path,
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    *,
    path: RowPath = "packed",
    batch_size: int,
    token_budget: int,
    precision: str = "auto",
    wrapped: nn.Module | None = None,
    optimizer: str = "adamw",
) -> Run:
    """Return a DPO run over groups with made-up reference values.

    Args:
        folder: where a recipe is written.
        scorer: on its device.
        groups: an epoch.
        path: how rows are laid out.
        batch_size: groups of a step.
        token_budget: tokens of a micro-batch.
        precision: as `train.precision`.
        wrapped: what the step calls in place of the scorer.
        optimizer: as `optim.name`.
    """
    file = folder / "check.yaml"
    file.write_text(
        "model: {name: nowhere}\ndata: {train: [{path: nowhere.jsonl}]}\n"
        f"optim: {{name: {optimizer}, lr: 1e-5, warmup: 0, schedule: constant}}\n"
        f"train: {{batch_size: {batch_size}, epochs: 999}}\n"
    )
    recipe = load(str(file)).recipe
    runtime = Runtime(precision)
    scorer.take(path)
    values = {key: (-6.0 * n, n) for group in groups for key, n in zip(group.keys, group.scored, strict=True)}
    return Run(
        recipe=recipe,
        runtime=runtime,
        scorer=scorer,
        model=wrapped or scorer,
        optimizer=build_optimizer(wrapped or scorer, recipe.optim),
        method=methods.get("dpo"),
        groups=groups,
        mismatched=[],
        lengths=lengths_of(groups, path),
        reference=ReferenceValues(values),
        total_steps=10**6,
        token_budget=token_budget,
        events=(),
        speed=Speed(0, 10**6),
    )
