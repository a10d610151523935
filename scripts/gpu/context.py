"""What a part of the check is given, and where it writes what it finds."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


class Unavailable(Exception):
    """The part cannot run here: a GPU or a package is missing."""


@dataclass(frozen=True)
class Context:
    """One part's surroundings."""

    device: torch.device
    tiny: bool
    """Shapes for a CPU in seconds; the figures mean nothing then."""
    model: Path | None
    """A model folder to take in place of random weights, for the parts that load one."""
    folder: Path
    """Empty, of this part alone."""
    file: Path
    """Figures and checks, one JSON object a line, written at once: a part that is killed keeps what it had."""
    deadline: float
    """By `time.monotonic`: when the process will be killed."""

    @property
    def is_cuda(self) -> bool:
        """Whether the part runs on a GPU."""
        return self.device.type == "cuda"

    @property
    def seconds_left(self) -> float:
        """Seconds until the process will be killed."""
        return self.deadline - time.monotonic()

    def figure(self, name: str, value: Any) -> None:
        """Report a figure."""
        self._write({"figure": name, "value": value})

    def check(self, name: str, value: float, limit: float) -> bool:
        """Report a figure that must not exceed a limit; a nan does. Return whether it holds."""
        is_ok = bool(value <= limit)
        self._write({"figure": name, "value": value, "limit": limit, "ok": is_ok})
        return is_ok

    def _write(self, row: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def need_cuda(self) -> None:
        """Raise `Unavailable` without a GPU."""
        if not self.is_cuda:
            raise Unavailable("needs CUDA")

    def need(self, package: str) -> None:
        """Raise `Unavailable` without a package."""
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"needs {package}")

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Return the seconds that some work takes on the device, from an idle device to an idle device."""
        self.synchronize()
        began = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - began

    def reset_peak(self) -> None:
        """Start to measure peak memory anew."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Return the most memory that was allocated since `reset_peak`; None on a CPU, which does not say."""
        return round(torch.cuda.max_memory_allocated() / 2**30, 2) if self.is_cuda else None

    def allocated_gib(self) -> float:
        """Return the memory that tensors take now; 0 on a CPU."""
        return torch.cuda.memory_allocated() / 2**30 if self.is_cuda else 0.0
