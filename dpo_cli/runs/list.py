"""What run folders say of themselves: state, time and cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_cli.metrics.sinks.jsonl import FILE_NAME as METRICS
from dpo_cli.metrics.sinks.jsonl import read_metrics
from dpo_cli.runs.status import FILE_NAME as STATUS
from dpo_cli.runs.status import Status, read_status


@dataclass(frozen=True)
class Cost:
    """What a run took; None where it does not say."""

    peak_memory_gib: float | None = None
    ms_per_step: float | None = None
    tokens_per_s: float | None = None
    pairs_per_s: float | None = None


def cost_of(run: Path) -> Cost:
    """Return what a run took: memory and time from `status.json`, tokens/s as the median of the logged windows."""
    status = read_status(run)
    if status is None:
        return Cost()
    speeds = sorted(row["perf/tokens_per_sec"] for row in _metrics(run) if row.get("perf/tokens_per_sec"))
    ms = 1000 * status.train_seconds / status.step if status.step and status.train_seconds else None
    return Cost(
        status.peak_memory_gib, ms, speeds[len(speeds) // 2] if speeds else None, status.pairs_per_second
    )


def _metrics(run: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(run / METRICS)
    except OSError:
        return []


@dataclass(frozen=True)
class RunState:
    """A run folder in figures."""

    path: Path
    status: Status
    eta_s: float | None
    """Seconds of training left, as last logged; None where nothing is under way."""
    silent_s: float
    """Seconds since it last wrote its status."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        evaluation = self.status.eval or {}
        return {
            "run": str(self.path),
            "state": self.status.state,
            "step": self.status.step,
            "steps": self.status.steps,
            "eta_s": self.eta_s,
            "silent_s": round(self.silent_s),
            "accuracy": evaluation.get("accuracy"),
            "ci": evaluation.get("ci"),
            "n": evaluation.get("n"),
            "what": evaluation.get("what"),
            "code": self.status.code,
            "resumable": self.status.resumable,
            "message": self.status.message,
        }


def runs_below(folder: Path) -> list[RunState]:
    """Return the runs in a folder (or the folder itself, if it is one), the one that wrote last first.

    One whose status cannot be read, as after a power cut, is there with the state `unknown`.
    """
    found = [path.parent for path in (*folder.glob(STATUS), *folder.glob(f"*/{STATUS}"))]
    states = [_state(run, read_status(run) or _unknown(run)) for run in found]
    return sorted(states, key=lambda state: state.silent_s)


def _unknown(run: Path) -> Status:
    what = f"{STATUS} cannot be read; if it was not at its end, the command that started it goes on"
    return Status(str(run), "", state="unknown", message=what)


def _state(run: Path, status: Status) -> RunState:
    silent = max(time.time() - (run / STATUS).stat().st_mtime, 0.0)
    eta = None
    if status.state in ("starting", "training"):
        eta = next(
            (row["perf/eta_s"] for row in reversed(_metrics(run)) if row.get("perf/eta_s") is not None), None
        )
    return RunState(run, status, eta, silent)
