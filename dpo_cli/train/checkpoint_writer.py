"""Saving beside training: the loop waits for a copy in memory, a thread writes it, and what goes wrong there stops the run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dpo_cli.errors import StorageError
from dpo_cli.runs.checkpoint import (
    Snapshot,
    clean,
    estimated_bytes,
    save_checkpoint,
    take_snapshot,
)
from dpo_cli.train.state import Run


class Saver:
    """Writes a run's checkpoints from the main process, one at a time."""

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        facts: Mapping[str, Any],
        extra: Snapshot,
        committed: Callable[[int], None] = lambda _step: None,
    ) -> None:
        """Take what every checkpoint of the run says beside the loop's own state.

        Args:
            folder: of the checkpoints.
            keep_last: how many stay.
            facts: JSON values for `state.json`.
            extra: more files of tensors, that training does not change.
            committed: called at a step boundary with the step of a checkpoint that was committed.
        """
        self._folder, self._keep_last, self.facts, self._extra = folder, keep_last, facts, extra
        self._on_commit = committed
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.step: int | None = None
        """Of the newest checkpoint, also while it is written; None: there is none."""

    def prepare(self, run: Run, will_save: bool) -> None:
        """Clear away what a kill left, and check that two checkpoints fit: one that is kept, one that is written.

        Raises:
            StorageError: they do not.
        """
        if not run.runtime.is_main:
            return
        clean(self._folder)
        if not will_save:
            return
        parent = next(path for path in (self._folder, *self._folder.parents) if path.is_dir())
        needed = estimated_bytes(run.scorer) * (1 if self.step is not None else 2)
        free = shutil.disk_usage(parent).free
        if free < needed:
            what = f"{free / 2**30:.2f} GiB free, checkpoints need {needed / 2**30:.2f}"
            fix = "free some space, train.output_dir=<another disk>, or train.save_every=0"
            raise StorageError.of(str(self._folder), what, fix)

    def save(self, run: Run) -> None:
        """Copy the run as it is after `run.step` steps and begin to write it; every rank calls this.

        Raises:
            StorageError: the checkpoint before this one could not be written.
        """
        self.join()
        if run.step == self.step:
            return
        self.step = run.step
        state = {
            **self.facts,
            "total_steps": run.total_steps,
            "meter": run.runtime.gather([run.meter.state()]),
            "owes_eval": run.owes_eval,
            "n_skipped": run.n_skipped,
            "train_seconds": run.speed.train_seconds,
            "selection": run.selection and run.selection.state(),
        }
        if run.runtime.is_main:
            snapshot = {**take_snapshot(run.scorer.model, run.optimizer), **self._extra}
            # Not a daemon: whatever ends the run, what was begun is finished.
            self._thread = threading.Thread(
                target=self._commit, args=(run.step, snapshot, state), name="checkpoint", daemon=False
            )
            self._thread.start()

    def poll(self) -> bool:
        """Return whether the last checkpoint could not be written, and pass on that one was; never waits."""
        if self._thread is not None and not self._thread.is_alive() and self._error is None:
            self._thread = None
            assert self.step is not None
            self._on_commit(self.step)
        return self._error is not None

    def join(self) -> None:
        """Wait until nothing is being written.

        Raises:
            StorageError: the checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        if self.poll():
            error, self._error, self._thread = self._error, None, None
            assert error is not None
            raise error

    def _commit(self, step: int, snapshot: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
        try:
            save_checkpoint(self._folder, step, snapshot, state, self._keep_last)
        except BaseException as error:  # raised again in the loop, at the next step boundary
            self._error = error
