"""Going on with a run: from which checkpoint, whether it is this run's, and what is said where the end will not be the same to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import random
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpo_cli.data.dataset import Data
from dpo_cli.data.load import data_digest
from dpo_cli.errors import Problem, RecipeError, StorageError
from dpo_cli.metrics.sinks.wandb import ID_FILE
from dpo_cli.recipe.compare import deciding
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.provide import to_score
from dpo_cli.runs.checkpoint import REFERENCE, Checkpoint, latest_checkpoint, load_checkpoint, load_extra
from dpo_cli.runs.folder import CHECKPOINTS, EXTENDS
from dpo_cli.train.loop import seed_step
from dpo_cli.train.optim import learning_rate
from dpo_cli.train.setup import Parts
from dpo_cli.train.state import Run

log = logging.getLogger("dpo_cli")


def newest_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, naming each damaged one; None where it has none.

    Raises:
        StorageError: there are some, and none is whole.
    """
    folder = run_dir / CHECKPOINTS
    checkpoint, skipped = latest_checkpoint(folder)
    for line in skipped:
        log.warning("%s", line)
    if checkpoint is None and skipped:
        what = "none of its checkpoints is whole"
        raise StorageError.of(str(folder), what, "train.resume=never starts another run")
    return checkpoint


def facts_of(parts: Parts) -> dict[str, Any]:
    """Return what a checkpoint says of the run it belongs to: recipe, data, choices, machine, tracker."""
    id_file = parts.run_dir / ID_FILE
    return {
        "recipe": deciding(parts.recipe),
        "data": _digests(parts.data),
        "choices": dataclasses.asdict(parts.choices),
        "machine": _machine(parts),
        "wandb_id": id_file.read_text().strip() if id_file.exists() else None,
    }


def pinned(parts: Parts) -> dict[str, dict[str, Tensor]]:
    """Return the reference log-probs that a run uses, for its checkpoints: the pin and the store may be lost or change."""
    if not isinstance(parts.reference, ReferenceValues):
        return {}
    values = parts.reference.of_keys(_keys(parts))
    totals = torch.tensor([total for total, _ in values], dtype=torch.float64)
    return {REFERENCE: {"total": totals, "tokens": torch.tensor([n for _, n in values], dtype=torch.int32)}}


def restore(run: Run, parts: Parts, checkpoint: Checkpoint) -> list[str]:
    """Put a run where its checkpoint was taken; return what the user should know, a line each.

    Raises:
        RecipeError: data or recipe are not those of the checkpoint, or fewer steps are asked for than are done.
        StorageError: it holds another model's weights.
    """
    state = checkpoint.state
    _check_same(parts, run, checkpoint)
    load_checkpoint(checkpoint, run.scorer.model, run.optimizer)
    reference = load_extra(checkpoint, REFERENCE)
    if reference and isinstance(parts.reference, ReferenceValues):
        totals, tokens = reference["total"].tolist(), reference["tokens"].tolist()
        parts.reference.add(dict(zip(_keys(parts), zip(totals, tokens, strict=True), strict=True)))
    _restore_meter(run, state)
    run.step = checkpoint.step
    # The evaluation after a run's last step is no selection's; where the run goes on, it is one on the way.
    was_last = run.step == state.get("total_steps") and run.step < run.total_steps
    run.owes_eval = was_last or bool(state.get("owes_eval"))
    run.n_skipped = int(state.get("n_skipped", 0))
    if run.selection is not None and state.get("selection"):
        run.selection.load_state(state["selection"])
    id_file = parts.run_dir / ID_FILE
    if state.get("wandb_id") and run.runtime.is_main and not id_file.exists():
        id_file.write_text(state["wandb_id"] + "\n")
    lines = [f"resuming after step {run.step} of {run.total_steps}", *_schedule_note(run, state)]
    changed = [
        f"{name} was {old}, is {new}"
        for name, new in _machine(parts).items()
        if (old := state.get("machine", {}).get(name, new)) != new
    ]
    return [*lines, f"not bit-exact from here: {'; '.join(changed)}"] if changed else lines


def _restore_meter(run: Run, state: dict[str, Any]) -> None:
    """Return each rank its open sums; where the number of ranks changed, the main one takes them all."""
    meters: list[dict[str, dict[str, Any]]] = state["meter"]
    if len(meters) == run.runtime.world:
        run.meter.load_state(meters[run.runtime.rank], run.runtime.device)
    elif run.runtime.is_main:
        sums, ranked = (_columns(meters, part) for part in ("sums", "ranked"))
        whole = {
            "sums": {name: [sum(column) for column in columns] for name, columns in sums.items()},
            "ranked": {
                name: [list(chain(*column)) for column in columns] for name, columns in ranked.items()
            },
        }
        run.meter.load_state(whole, run.runtime.device)


def _columns(meters: list[dict[str, dict[str, Any]]], part: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return what all ranks' windows hold under each name, side by side."""
    windows = [meter.get(part, {}) for meter in meters]
    names = dict.fromkeys(name for window in windows for name in window)
    return {name: list(zip(*(w[name] for w in windows if name in w), strict=True)) for name in names}


def _check_same(parts: Parts, run: Run, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of other rows or another recipe; keys that one of the two versions did not know are not compared."""
    state, now = checkpoint.state, deciding(parts.recipe)
    problems = [
        Problem(key, f"{checkpoint.path} has {key}={old}, the recipe now says {now[key]}", "undo the change")
        for key, old in state.get("recipe", {}).items()
        if key in now and now[key] != old and key not in EXTENDS
    ]
    fix = "restore the files, or train.resume=never starts another run"
    problems += [
        Problem(f"data.{part}", f"the rows changed since {checkpoint.path} was written: {old} -> {new}", fix)
        for part, new in _digests(parts.data).items()
        if (old := state.get("data", {}).get(part, new)) != new
    ]
    if checkpoint.step > run.total_steps:
        what = f"{checkpoint.step} steps are done, the recipe now asks for {run.total_steps}"
        problems.append(Problem("train.max_steps", what, "more steps, or another `name`"))
    if problems:
        raise RecipeError(problems)


def _schedule_note(run: Run, state: dict[str, Any]) -> list[str]:
    """Return what another number of steps does to the learning rate, which is a function of step and total."""
    old, new, optim = state.get("total_steps", run.total_steps), run.total_steps, run.recipe.optim
    if old == new:
        return []
    said = f"from {old} to {new} steps"
    if all(learning_rate(step, old, optim) == learning_rate(step, new, optim) for step in range(run.step)):
        return [f"{said}: the learning rate so far is that of {new} steps from the start"]
    last, following = learning_rate(max(run.step - 1, 0), old, optim), learning_rate(run.step, new, optim)
    return [
        f"{said}: the learning rate ({optim.schedule}) goes from {last:.3g} to {following:.3g};"
        f" {new} steps from the start would have had another course, and end elsewhere"
    ]


def _digests(data: Data) -> dict[str, str]:
    return {"train": data_digest([*data.train, *data.mismatched]), "eval": data_digest(data.eval)}


def _keys(parts: Parts) -> list[str]:
    return [key for group in to_score(parts.recipe, parts.data) for key in group.keys]


def _machine(parts: Parts) -> dict[str, Any]:
    """Return what the last bits of a result depend on beside the run itself."""
    device = parts.runtime.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    seed_step(parts.recipe.train.seed, 0, 0)
    drawn = (torch.rand(4).tolist(), random.random(), float(np.random.rand()))
    return {
        "ranks": parts.runtime.world,
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": parts.runtime.precision,
        "max_tokens_per_micro_batch": parts.choices.token_budget,
        "random numbers": hashlib.blake2b(repr(drawn).encode(), digest_size=4).hexdigest(),
    }
