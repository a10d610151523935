"""What happens between steps: logging, evaluation, checkpoints. One small class each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpo_cli.evaluate.pairs import Evaluation
from dpo_cli.metrics.sinks import Fanout
from dpo_cli.metrics.sinks.console import ConsoleSink
from dpo_cli.metrics.speed import peak_memory_gib
from dpo_cli.train.checkpoint import save_checkpoint
from dpo_cli.train.loop import Run, check_finite
from dpo_cli.train.status import Status


@dataclass
class LogEvent:
    """Reduces the meter over ranks and hands the window's means to the sinks."""

    sinks: Fanout
    console: ConsoleSink | None
    status: Status
    every: int

    def after_step(self, run: Run) -> None:
        """Log every `every` steps and after the last."""
        if self.console is not None:
            self.console.advance(run.step)
        if run.step % self.every and run.step != run.total_steps:
            return
        values = run.meter.reduce(run.runtime.sum_over_ranks, run.runtime.gather)
        values |= run.speed.read() | {"train/epoch": run.step * run.recipe.train.batch_size / len(run.groups)}
        if not run.runtime.is_main:
            check_finite(values, run.step)
            return
        self.sinks.write(run.step, values)
        self.status.step, self.status.state = run.step, "training"
        self.status.train_seconds = run.speed.train_seconds
        self.status.pairs_per_second = values.get("perf/pairs_per_sec")
        self.status.peak_memory_gib = peak_memory_gib()
        self.status.write()
        check_finite(values, run.step)


@dataclass
class EvalEvent:
    """Evaluates the held-out rows; the last evaluation belongs to the end of the run."""

    evaluate: Callable[[], Evaluation]
    sinks: Fanout
    every: int

    def after_step(self, run: Run) -> None:
        """Evaluate every `every` steps, not after the last."""
        if not self.every or run.step % self.every or run.step == run.total_steps:
            return
        began = time.monotonic()
        result = self.evaluate()
        if run.runtime.is_main:
            self.sinks.write(run.step, result.as_metrics())
        run.speed.pause(time.monotonic() - began)


@dataclass
class SaveEvent:
    """Writes a checkpoint, from the main process."""

    folder: Path
    status: Status
    every: int
    keep_last: int

    def after_step(self, run: Run) -> None:
        """Save every `every` steps and after the last: a run that dies while it finishes need not train again."""
        if not self.every or (run.step % self.every and run.step != run.total_steps):
            return
        began = time.monotonic()
        state = {"meter": run.runtime.gather([run.meter.state()]), "train_seconds": run.speed.train_seconds}
        if run.runtime.is_main:
            save_checkpoint(self.folder, run.step, run.scorer.model, run.optimizer, state, self.keep_last)
            self.status.resumable = True
            self.status.write()
        run.runtime.wait()
        run.speed.pause(time.monotonic() - began)
