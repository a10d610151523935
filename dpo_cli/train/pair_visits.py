"""What each training pair meets on its way: its margin before every gradient of its own, and how hard the loss pulls at it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpo_cli.evaluate.pairs.pair_history import FOLDER, VISITS
from dpo_cli.metrics.sinks.jsonl import ends_mid_line

log = logging.getLogger("dpo_cli")


class Visits:
    """Notes visits on the device and appends them to the run's file where the run looks anyway: no host sync between two log steps."""

    def __init__(self, run_dir: Path) -> None:
        """Write below a run's folder; nothing before the first `flush`."""
        self._path = run_dir / FOLDER / VISITS
        self._rows: list[tuple[int, int]] = []
        """(step from 0, example) of each visit since the last flush."""
        self._values: list[Tensor] = []
        """(2, B) on the device, in that order: margins and weights."""
        self._has_warned = False

    def add(self, step: int, members: Sequence[int], margins: Tensor, weights: Tensor) -> None:
        """Note a micro-batch: its examples, their margins in reward units, (B,), and the loss's weight on them, (B,)."""
        self._rows += [(step, member) for member in members]
        self._values.append(torch.stack([margins.detach().to(weights), weights]))

    def flush(self, gather: Callable[[list[Any]], list[Any]], is_main: bool) -> None:
        """Append what all ranks noted, a line a rank; every rank calls this. A full disk costs lines, not the run."""
        rows, self._rows = self._rows, []
        values, self._values = self._values, []
        margins, weights = torch.cat(values, dim=1).tolist() if values else ([], [])
        steps, members = ([pair[i] for pair in rows] for i in (0, 1))
        found = gather([{"step": steps, "row": members, "margin": margins, "weight": weights}])
        lines = [json.dumps(_finite(part)) + "\n" for part in found if part["step"]]
        if not lines or not is_main:
            return
        try:
            self._path.parent.mkdir(exist_ok=True)
            if ends_mid_line(self._path):
                lines.insert(0, "\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            if not self._has_warned:
                log.warning("%s cannot be written (%s); the ledger has gaps", self._path, error)
            self._has_warned = True


def _finite(part: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return values for strict JSON: what is not finite becomes null."""
    return {
        name: [value if math.isfinite(value) else None for value in values] for name, values in part.items()
    }
