"""A small run built in code, for tests of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dpo_cli import methods
from dpo_cli.data.load import load_data
from dpo_cli.engine.batching import score_groups
from dpo_cli.engine.runtime import Runtime
from dpo_cli.metrics.speed import Speed
from dpo_cli.modeling.router_loss import router_of
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.load import load
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.train.optim import build_optimizer
from dpo_cli.train.state import Event, Run
from dpo_cli.train.step_plan import total_steps
from tests.fakes import byte_tokenizer, pair_rows, tiny_llama, write_jsonl


class Recorder:
    """Keeps what would be logged after each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def after_step(self, run: Run) -> None:
        """Reduce the meter after every step."""
        self.rows.append(run.meter.reduce(run.runtime.sum_over_ranks))

    @property
    def losses(self) -> list[float]:
        """Give the loss of each step."""
        return [row["train/loss"] for row in self.rows]


def small_run(
    folder: Path,
    *overrides: str,
    token_budget: int = 10_000,
    n: int = 24,
    path: str = "packed",
    dropout: float = 0.0,
    rows: Sequence[dict[str, str]] = (),
    model: PreTrainedModel | None = None,
) -> tuple[Run, Recorder]:
    """Give a run of a tiny Llama, or of `model`, on `rows`, or n synthetic pairs, in batches of 8, and what it logs; nothing is trained yet."""
    write_jsonl(folder / "rows.jsonl", rows or pair_rows(n))
    (folder / "small.yaml").write_text(
        "model: {name: nowhere}\n"
        "data: {train: [{path: rows.jsonl}], split: {eval: 0.0}}\n"
        "optim: {lr: 1e-3, warmup: 0, schedule: constant}\n"
        "train: {batch_size: 8, epochs: 4, precision: fp32}\n"
    )
    recipe = load(str(folder / "small.yaml"), overrides).recipe
    runtime = Runtime("fp32")
    method = methods.get(recipe.method.name)
    data = load_data(
        replace(recipe.data, cache=str(folder / "tokens")), byte_tokenizer(), method.needs(recipe.method)
    )
    groups = data.train
    model = model or tiny_llama(attention_dropout=dropout)
    scorer = Scorer(model, "packed" if path == "packed" else "padded")
    scorer.router = router_of(model, recipe.model.router_loss)
    known = [*groups, *data.mismatched, *(group.public() for group in groups)]
    sums = score_groups(scorer, known, 4096, runtime.autocast)
    reference = ReferenceValues(
        {
            key: value
            for group, own in zip(known, sums, strict=True)
            for key, value in zip(group.keys, own, strict=True)
        }
    )
    recorder = Recorder()
    events: list[Event] = [recorder]
    steps = total_steps(len(groups), recipe.train.batch_size, recipe.train.epochs, recipe.train.max_steps)
    return Run(
        recipe=recipe,
        runtime=runtime,
        scorer=scorer,
        model=scorer,
        optimizer=build_optimizer(scorer, recipe.optim),
        method=method,
        groups=groups,
        mismatched=data.mismatched,
        lengths=[group.n_tokens for group in groups],
        reference=reference if method.needs_reference else None,
        total_steps=steps,
        token_budget=token_budget,
        events=events,
        speed=Speed(0, steps),
    ), recorder


def weights(run: Run) -> torch.Tensor:
    """Give all weights, flattened."""
    return torch.cat([weight.detach().flatten() for weight in run.scorer.parameters()])
