"""Which weights a run ships: the last, or those of an earlier evaluation that are better beyond the noise of the held-out rows; and when to stop."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.compare.significance import models_differ
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.runs.checkpoint import STATE
from dpo_cli.train.setup import Parts

log = logging.getLogger("dpo_cli")

T = TypeVar("T")

FOLDER = "best"
LEVEL = 0.05


class Ranks(Protocol):
    """What a selection needs of a run's ranks."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""

    def from_main(self, value: T) -> T:
        """Return the main rank's value on every rank."""

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items of all ranks on every rank."""


@dataclass
class Best:
    """The best evaluation so far, and its weights' file."""

    step: int
    accuracy: float
    loss: float
    correct: list[float]
    """What each held-out pair counts, in their order."""
    digest: str = ""
    """Of the file; empty where no weights are kept."""


@dataclass(frozen=True)
class Choice:
    """Which weights are taken, in words."""

    step: int | None
    """Of the earlier weights; None: the last."""
    text: str


def selection_of(parts: Parts) -> Selection | None:
    """Return what follows a run's evaluations; None where nothing is held out, or the last weights are taken whatever they say."""
    wanted, prompts = parts.recipe.train, [row.prompt_key for row in parts.data.eval_rows]
    if not prompts or (wanted.select == "last" and wanted.early_stop is None):
        return None
    return Selection(parts.run_dir, wanted.select == "best", wanted.early_stop, prompts, parts.runtime)


def choose(
    parts: Parts, selection: Selection | None, trained: Evaluation | None
) -> tuple[Evaluation | None, str]:
    """Put the weights that a run ships in place; return their evaluation and, where there was a choice, which they are in words."""
    if selection is None or trained is None:
        return trained, ""
    choice = selection.choose(trained)
    if choice.step is None:
        return trained, choice.text
    if not selection.load_best(parts.scorer.model):
        return trained, f"of the last step: the file of step {choice.step}, which was better, is damaged"
    return parts.evaluate(), choice.text


class Selection:
    """Follows a run's evaluations; its state is part of every checkpoint, so a resumed run chooses and stops as it would have."""

    def __init__(
        self, run_dir: Path, keeps_weights: bool, patience: int | None, clusters: Sequence[str], ranks: Ranks
    ) -> None:
        """Begin without an evaluation.

        Args:
            run_dir: the run's folder; weights go below it, and only if `keeps_weights`.
            keeps_weights: whether an earlier evaluation's weights may be taken.
            patience: evaluations in a row without a better one after which the run ends; None: it never ends early.
            clusters: the prompt of each held-out pair.
            ranks: the run's; the main one writes, all load.
        """
        self._folder, self._keeps, self._patience = run_dir / FOLDER, keeps_weights, patience
        self._clusters, self._ranks = clusters, ranks
        self.best: Best | None = None
        self.n = 0
        """Evaluations seen."""
        self.waited = 0
        """Of them, since the best one."""

    @property
    def is_over(self) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and self.waited >= self._patience

    def see(self, step: int, result: Evaluation, model: nn.Module) -> None:
        """Take note of an evaluation, and keep the weights of the best one; every rank calls this with the same result.

        Raises:
            StorageError: they cannot be written.
        """
        if result.correct is None or result.accuracy is None:
            return
        self.n += 1
        old = self.best
        if old is not None and (result.accuracy, -result.loss) <= (old.accuracy, -old.loss):
            self.waited += 1
            return
        self.waited = 0
        self.best = Best(step, result.accuracy, result.loss, list(result.correct))
        if not self._keeps:
            return
        if self._ranks.is_main:
            self.best.digest = self._write(step, model)
            self._prune({step, *([old.step] if old else [])})
        self.best.digest = self._ranks.from_main(self.best.digest)

    def choose(self, last: Evaluation) -> Choice:
        """Choose between the best weights and the last: the best only where it is better on the same pairs beyond noise.

        The best of n is an argmax: its p-value is multiplied by their number (Bonferroni).
        """
        best = self.best
        if not self._keeps or best is None or last.correct is None or last.accuracy is None:
            return Choice(None, "")
        if best.accuracy <= last.accuracy:
            return Choice(None, f"of the last step: none of {self.n} evaluations was better")
        found = models_differ(np.array(best.correct), np.array(last.correct), self._clusters)
        p_value = 1.0 if found.p_value is None else min(found.p_value * self.n, 1.0)
        compared = f"step {best.step}, {best.accuracy:.3f} against {last.accuracy:.3f} at the end on the same {last.n:,} pairs"
        corrected = f"p = {p_value:.2g}, corrected for {self.n} evaluations"
        if p_value >= LEVEL:
            return Choice(None, f"of the last step: {compared}, is not separable from it ({corrected})")
        return Choice(
            best.step, f"of {compared} ({corrected}); chosen on these pairs, so their figures flatter"
        )

    def load_best(self, model: nn.Module) -> bool:
        """Put the best weights into a model, on all ranks or on none; where their file is damaged, say so and leave the last."""
        weights = self._read()
        if not all(self._ranks.gather([weights is not None])):
            return False
        assert weights is not None, "this rank is one of all"
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    weight.copy_(weights[name])
        return True

    def _read(self) -> dict[str, Tensor] | None:
        """Return the best weights; None where their file is damaged."""
        assert self.best is not None, "something was chosen"
        path = self._path(self.best.step)
        try:
            content = path.read_bytes()
            if hashlib.blake2b(content).hexdigest() != self.best.digest:
                raise OSError("its content changed")
            return load(content)
        except (OSError, SafetensorError) as error:
            log.warning("%s is not used (%s): the last weights are kept", path, error)
            return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best and asdict(self.best), "n": self.n, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.best = Best(**state["best"]) if state["best"] else None
        self.n, self.waited = state["n"], state["waited"]

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"

    def _write(self, step: int, model: nn.Module) -> str:
        """Write the trained weights, whole or not at all; return the file's digest."""
        path = self._path(step)
        weights = {
            name: weight.detach().cpu() for name, weight in model.named_parameters() if weight.requires_grad
        }
        content = save({name: weight.contiguous() for name, weight in weights.items()})
        try:
            self._folder.mkdir(exist_ok=True)
            path.with_suffix(".tmp").write_bytes(content)
            os.replace(path.with_suffix(".tmp"), path)
        except OSError as error:
            fix = "free some space, train.output_dir=<another disk>, or train.select=last"
            raise StorageError.of(str(path), f"cannot be written: {error.strerror}", fix) from None
        return hashlib.blake2b(content).hexdigest()

    def _prune(self, wanted: set[int]) -> None:
        """Remove weights that neither this run nor a checkpoint that it may go on from calls the best."""
        for path in self._folder.parent.glob(f"checkpoints/*/{STATE}"):
            try:
                best = json.loads(path.read_text())["selection"]["best"]
                wanted = wanted | ({best["step"]} if best else set())
            except (OSError, ValueError, KeyError, TypeError):
                continue
        keep = {self._path(step) for step in wanted}
        for path in self._folder.glob("step-*.safetensors"):
            if path not in keep:
                path.unlink(missing_ok=True)
