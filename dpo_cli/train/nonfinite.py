"""Steps whose loss or gradient is not finite: they change no weight, are found where the run looks anyway, and name their rows."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dpo_cli.errors import NumericsError, StorageError
from dpo_cli.files import commit
from dpo_cli.reference.cached import ReferenceValues

if TYPE_CHECKING:
    from dpo_cli.train.state import Run, Trace

log = logging.getLogger("dpo_cli")

FILE_NAME = "bad_batch.json"
_ROWS_SHOWN = 5


def spread(loss: Tensor) -> Tensor:
    """Return the loss; where it is not finite, its gradients are all nan: every rank then sees it in the gradient's norm."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


@dataclass(frozen=True)
class FiniteCheck:
    """Looks at the steps since the last look: at every log step and before every checkpoint; one host sync."""

    run_dir: Path
    budget: int
    """Steps that a run may leave out."""

    def look(self, run: Run) -> None:
        """Name the steps that were left out, write the newest one's rows to `bad_batch.json`; every rank calls this.

        Raises:
            NumericsError: more steps than the budget were left out.
        """
        traces, run.traces = run.traces, []
        if not traces:
            return
        flags = torch.stack([trace.is_bad for trace in traces]).tolist()
        for trace in [trace for trace, is_bad in zip(traces, flags, strict=True) if is_bad]:
            run.n_skipped += 1
            found = run.runtime.gather(_suspects(trace))
            if run.runtime.is_main:
                self._dump(run, trace.step, found)
            message = _message(run, trace.step, found)
            if run.n_skipped > self.budget:
                fix = f"look at the rows in {self.run_dir / FILE_NAME}; a smaller optim.lr, train.precision=fp32"
                fix += f", or train.skip_nonfinite={run.n_skipped} leaves out as many steps"
                raise NumericsError.of(f"step {trace.step + 1}", f"{message}; no weight was changed", fix)
            if run.runtime.is_main:
                log.warning(
                    "step %d left out, %d of %d: %s", trace.step + 1, run.n_skipped, self.budget, message
                )

    def _dump(self, run: Run, step: int, found: Sequence[tuple[Sequence[int], bool]]) -> None:
        content = {
            "step": step + 1,
            "rows": [
                _row(run, member, is_finite)
                for members, is_finite in sorted(found, key=lambda item: item[1])
                for member in members
            ],
        }
        try:
            commit(self.run_dir, FILE_NAME, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            raise StorageError.of(str(self.run_dir / FILE_NAME), f"cannot be written: {error}") from None


def _suspects(trace: Trace) -> list[tuple[tuple[int, ...], bool]]:
    """Return this rank's micro-batches and whether their loss was finite."""
    is_finite = torch.stack(list(trace.losses)).isfinite().tolist()
    return [(tuple(members), flag) for members, flag in zip(trace.bins, is_finite, strict=True)]


def _message(run: Run, step: int, found: Sequence[tuple[Sequence[int], bool]]) -> str:
    rows = [run.groups[member].source for members, is_finite in found if not is_finite for member in members]
    if not rows:
        return "the gradient was not finite, though every loss was"
    more = f" and {len(rows) - _ROWS_SHOWN} more" if len(rows) > _ROWS_SHOWN else ""
    return f"the loss was not finite in a micro-batch with {', '.join(rows[:_ROWS_SHOWN])}{more}"


def _row(run: Run, member: int, is_finite: bool) -> dict[str, Any]:
    """Return a row as the model got it."""
    group = run.groups[member]
    values = run.reference.of_keys(group.keys) if isinstance(run.reference, ReferenceValues) else []
    return {
        "row": group.source,
        "loss_is_finite": is_finite,
        "reference": [total if math.isfinite(total) else None for total, _ in values],
        "prompt_ids": group.prompt.tolist(),
        "completion_ids": [ids.tolist() for ids in group.completions],
        "scored": [mask.tolist() for mask in group.masks],
    }
