"""`metrics.jsonl`: one object a logged step, the file that every report of a run reads."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from dpo_cli.metrics.sinks import RunInfo

log = logging.getLogger("dpo_cli")

FILE_NAME = "metrics.jsonl"


class JsonlSink:
    """Appends `step`, `time` (unix seconds), `attempt` and values; a full disk costs lines, not the run."""

    def __init__(self) -> None:
        """Write nothing before `start`, which knows the folder."""
        self._file: TextIO | None = None
        self._attempt = 0
        self._warned = False

    def start(self, info: RunInfo) -> None:
        """Open the run's file for appending; a line that a crash cut short is ended first."""
        path = info.run_dir / FILE_NAME
        self._attempt = info.attempt
        try:
            torn = ends_mid_line(path)
            self._file = path.open("a", encoding="utf-8")
            if torn:
                self._file.write("\n")
        except OSError as error:
            self._warn(error)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line and hand it to the system."""
        if self._file is None:
            return
        row = {"step": step, "time": time.time(), "attempt": self._attempt, **values}
        try:
            self._file.write(_dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:  # what a full disk kept in the buffer
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning(
                "%s cannot be written (%s); training goes on, figures may be missing there", FILE_NAME, error
            )
        self._warned = True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`, one a step, in order of steps.

    Rows of one step (training, then evaluation) are merged. A resumed run repeats the steps after its checkpoint, or
    only an evaluation that was put off: the highest attempt of each value counts. Lines cut short by a crash are left out.
    """
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _parse(line)
        if row is None:
            continue
        known = steps.get(row["step"])
        if known is None:
            steps[row["step"]] = row
        elif row["attempt"] >= known["attempt"]:
            known.update(row)
    return [steps[step] for step in sorted(steps)]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row and "attempt" in row else None


def _dumps(row: Mapping[str, Any]) -> str:
    """Return strict JSON: what is not finite becomes null, which every reader of JSON takes."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite)


def ends_mid_line(path: Path) -> bool:
    """Return whether a crash or a full disk cut a file's last line short: what is appended must not become part of it."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
