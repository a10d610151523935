"""What a run chooses by looking at the machine and the model, kept in its folder so that a resumed run repeats it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dpo_cli.data.dataset import Data
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import StorageError
from dpo_cli.files import commit
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.exactness import choose_compiled, choose_path
from dpo_cli.modeling.precision import choose_checkpointing, token_budget
from dpo_cli.modeling.scorer import Path as RowPath
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Recipe
from dpo_cli.runs.folder import CHOICES
from dpo_cli.train.probe import fitting_budget
from dpo_cli.types import TokenGroup


@dataclass(frozen=True)
class Choices:
    """What a run chose by looking at the machine and the model; fixed at its first start, so that a resumed run repeats it."""

    path: RowPath
    precision: str
    token_budget: int
    threads: int
    note: str
    """Why these, for the user."""
    is_compiled: bool = False
    is_checkpointed: bool = False
    is_offloaded: bool = False


def choose(
    recipe: Recipe,
    runtime: Runtime,
    run_dir: Path,
    scorer: Scorer,
    data: Data,
    n_steps: int,
    chosen: Mapping[str, Any] | None,
) -> Choices:
    """Choose path, token budget and how blocks run, or repeat what this run chose at its first start."""
    if chosen is None:
        chosen = runtime.from_main(_kept(run_dir) if runtime.is_main else None)
    wanted = recipe.train.max_tokens_per_micro_batch
    if chosen is not None:
        choices = _with_budget(Choices(**chosen), wanted)
        if runtime.is_main:
            keep(run_dir, CHOICES, asdict(choices))
        runtime.precision = choices.precision
        _apply(choices, scorer)
        if choices.is_compiled and runtime.device.type == "cuda":
            # The compiler tunes its code to the sizes that it sees first: show it the same rows as at the first start.
            choose_compiled("blocks", scorer, data.train, n_steps, runtime.autocast)
            _apply(choices, scorer)
        torch.set_num_threads(choices.threads)
        return choices
    choices = runtime.from_main(_new_choices(recipe, runtime, scorer, data, n_steps))
    _apply(choices, scorer)
    if runtime.is_main:
        keep(run_dir, CHOICES, asdict(choices))
    return choices


def _new_choices(recipe: Recipe, runtime: Runtime, scorer: Scorer, data: Data, n_steps: int) -> Choices:
    train, device, precision = recipe.train, runtime.device, runtime.precision
    found = choose_path(
        scorer, data.train, recipe.model.attention, runtime.autocast, is_fp32=precision == "fp32"
    )
    budget = train.max_tokens_per_micro_batch
    is_compiled, of_compiled = choose_compiled(train.compile, scorer, data.train, n_steps, runtime.autocast)
    optimizer = recipe.optim.name
    is_checkpointed, of_checkpointed = choose_checkpointing(
        train, scorer.model, device, precision, optimizer=optimizer, is_compiled=is_compiled
    )
    is_offloaded = train.checkpoint_activations == "offload"
    blocks = {"is_compiled": is_compiled, "is_checkpointed": is_checkpointed, "is_offloaded": is_offloaded}
    set_blocks(scorer.model, **blocks)
    if budget == "auto":
        budget = token_budget(scorer.model, device, precision, optimizer=optimizer, **blocks)
        if device.type == "cuda":  # on a CPU the system would end the process, not refuse
            lengths = lengths_of(data.train, found.path)
            budget = fitting_budget(scorer, data.train, lengths, budget, runtime, optimizer)
    return Choices(
        path=found.path,
        precision=precision,
        token_budget=int(budget),
        threads=torch.get_num_threads(),
        note="; ".join(filter(None, [found.reason, of_compiled, of_checkpointed])),
        **blocks,
    )


def _apply(choices: Choices, scorer: Scorer) -> None:
    scorer.take(choices.path)
    # A run that goes on without a GPU has no kernel there that can be compiled.
    is_cuda = scorer.model.device.type == "cuda"
    set_blocks(
        scorer.model,
        is_compiled=choices.is_compiled and is_cuda,
        is_checkpointed=choices.is_checkpointed,
        is_offloaded=choices.is_offloaded and is_cuda,
    )


def _with_budget(choices: Choices, wanted: str | int) -> Choices:
    """Take another token budget where the user now asks for one: a run that ran out of memory goes on with less."""
    return choices if wanted == "auto" else replace(choices, token_budget=int(wanted))


def lengths_of(groups: Sequence[TokenGroup], path: RowPath) -> list[int]:
    """Return the tokens that each group costs: with prompts shared, or a prompt per completion."""
    if path == "packed":
        return [group.n_tokens for group in groups]
    return [group.n_row_tokens for group in groups]


def keep(run_dir: Path, name: str, values: dict[str, Any]) -> None:
    """Write a file of the run's folder, whole or not at all."""
    try:
        commit(run_dir, name, json.dumps(values, indent=1).encode() + b"\n")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StorageError.of(str(run_dir / name), what, "free some space") from None


def _kept(run_dir: Path) -> dict[str, Any] | None:
    """Return what the run's folder says was chosen; None where it says nothing."""
    path = run_dir / CHOICES
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return asdict(Choices(**found))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        what = f"cannot be read: {error}"
        raise StorageError.of(str(path), what, "remove it: the run has no checkpoint yet") from None
