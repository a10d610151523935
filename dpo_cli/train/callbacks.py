"""What happens between steps: logging, evaluation, checkpoints. One small class each."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from dpo_cli.errors import Stopped, StorageError
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.metrics.health.stuck import is_still
from dpo_cli.metrics.sinks import Fanout
from dpo_cli.metrics.sinks.console import ConsoleSink
from dpo_cli.metrics.speed import peak_memory_gib
from dpo_cli.runs.status import Status
from dpo_cli.train.checkpoint_writer import Saver
from dpo_cli.train.nonfinite import FiniteCheck
from dpo_cli.train.optim import update_sizes
from dpo_cli.train.signals import Signals, Wish
from dpo_cli.train.state import Run


@dataclass
class LogEvent:
    """Reduces the meter over ranks and hands the window's means to the sinks."""

    sinks: Fanout
    console: ConsoleSink | None
    status: Status
    finite: FiniteCheck
    every: int

    def after_step(self, run: Run) -> None:
        """Log every `every` steps and after the last."""
        if self.console is not None:
            self.console.advance(run.step)
        if not run.step % self.every or run.step == run.total_steps:
            self._write(run)

    def rest(self, run: Run, first_step: int) -> None:
        """Log what an early stop left between two lines, where this process made a step."""
        if run.step % self.every and first_step < run.step < run.total_steps:
            self._write(run)

    def _write(self, run: Run) -> None:
        """Log what was counted since the last line, and look at those steps; every rank calls this.

        Raises:
            NumericsError: too many of them were not finite.
        """
        values = run.meter.reduce(run.runtime.sum_over_ranks, run.runtime.gather)
        if is_still(values, run.step):
            values |= update_sizes(run.scorer, run.optimizer)
        values |= run.speed.read() | {"train/epoch": run.step * run.recipe.train.batch_size / len(run.groups)}
        if run.runtime.is_main:
            self.sinks.write(run.step, values)
            if self.console is not None:
                self.status.notes = self.console.noted  # the list itself: the last evaluation may add to it
            self.status.step, self.status.state = run.step, "training"
            self.status.train_seconds = run.speed.train_seconds
            self.status.pairs_per_second = values.get("perf/pairs_per_sec")
            self.status.peak_memory_gib = peak_memory_gib()
            self.status.write()
        if run.visits is not None:
            run.visits.flush(run.runtime.gather, run.runtime.is_main)
        self.finite.look(run)


@dataclass
class EvalEvent:
    """Evaluates the held-out rows; the last evaluation belongs to the end of the run."""

    evaluate: Callable[[], Evaluation]
    sinks: Fanout
    every: int
    signals: Signals

    def after_step(self, run: Run) -> None:
        """Evaluate every `every` steps, not after the last; a stop puts it off until the run goes on."""
        run.owes_eval = bool(self.every) and run.step % self.every == 0 and run.step != run.total_steps
        if not run.owes_eval or run.runtime.highest(self.signals.wish) == Wish.STOP:
            return
        began = time.monotonic()
        try:
            # Several ranks divide the rows: none may leave alone.
            with self.signals.released() if run.runtime.world == 1 else nullcontext():
                result = self.evaluate()
        except Stopped:
            return
        run.owes_eval = False
        if run.runtime.is_main:
            self.sinks.write(run.step, result.as_metrics())
        if run.selection is not None:
            run.selection.see(run.step, result, run.scorer.model)
        run.speed.pause(time.monotonic() - began)


@dataclass
class SaveEvent:
    """Writes checkpoints when they are due or asked for, and ends the run where that is asked; always the last event of a step."""

    saver: Saver
    signals: Signals
    finite: FiniteCheck
    every: int
    """0: only what a signal asks for."""

    def after_step(self, run: Run) -> None:
        """Save every `every` steps and after the last: a run that dies while it finishes need not train again.

        Raises:
            StorageError: a checkpoint could not be written.
            NumericsError: a step since the last log was not finite.
            Stopped: a signal asked for it, and the checkpoint is committed.
        """
        wish = run.runtime.highest(_FAILED if self.saver.poll() else self.signals.wish)
        is_due = bool(self.every) and (run.step % self.every == 0 or run.is_over)
        if wish == _FAILED:
            self.saver.join()
            raise StorageError.of("", "the main process could not write a checkpoint")
        if not is_due and not wish:
            return
        began = time.monotonic()
        self.finite.look(run)
        if run.visits is not None:  # a resumed run repeats only what comes after its checkpoint
            run.visits.flush(run.runtime.gather, run.runtime.is_main)
        self.saver.save(run)
        self.signals.served()
        if wish == Wish.STOP:
            self.saver.join()
            raise Stopped(self.signals.by or "another rank's signal")
        run.speed.pause(time.monotonic() - began)


_FAILED = max(Wish) + 1
"""What a rank tells the others where it cannot go on; above every wish."""
