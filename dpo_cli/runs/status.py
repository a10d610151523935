"""`status.json`: what a launcher's exit code hides, and what the next `dpo train` reads to know whether to go on."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("dpo_cli")

FILE_NAME = "status.json"

State = Literal["starting", "training", "finishing", "finished", "stopped", "failed", "unknown"]
"""`unknown` stands in no file: it is that of one that cannot be read."""


@dataclass
class Status:
    """A run in figures, for scripts."""

    run_dir: str
    digest: str
    """Digest of the resolved recipe."""
    state: State = "starting"
    code: int | None = None
    """Exit code; null while the run goes on."""
    step: int = 0
    steps: int = 0
    resumable: bool = False
    message: str = ""
    resume: str = ""
    """The command that goes on, where a stopped or failed run can."""
    attempt: int = 0
    train_seconds: float = 0.0
    pairs_per_second: float | None = None
    peak_memory_gib: float | None = None
    eval: dict[str, Any] | None = None
    """`accuracy`, `ci`, `n`, `margin`, `loss`, `longer_wins` and `axis` (see `evaluate/axis.py`) on the held-out rows; null without any."""
    notes: list[str] = field(default_factory=list)
    """What the curves said on the way (a gradient spike, margins that saturate), each with its evidence and the next action."""
    margins: dict[str, float] = field(default_factory=dict)
    """Mean held-out margin as `trained`, as `saved` and as a server loads it in `bf16`."""

    weights: str = ""
    """Which weights `model/` holds, where the run chose between the last and those of an earlier evaluation."""

    def write(self) -> None:
        """Replace the file in the run folder, whole or not at all; a full disk costs the file, not the run."""
        path = Path(self.run_dir) / FILE_NAME
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
            os.replace(temporary, path)
        except OSError as error:
            log.warning("%s cannot be written (%s)", path, error.strerror)


def read_status(run_dir: Path) -> Status | None:
    """Return the status of a run folder; None where it has none that can be read."""
    try:
        status = Status(**json.loads((run_dir / FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return status if isinstance(status.eval, dict | None) and isinstance(status.step, int) else None
