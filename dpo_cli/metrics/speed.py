"""How fast the run goes, how much of it is padding, when it ends and how much memory it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


class Speed:
    """Counts work since the last `read`, and the steps since the start for the time left."""

    def __init__(
        self, step: int, steps: int, spent_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock at `step` of `steps`; a resumed run starts it where it goes on, `spent_s` seconds after its start."""
        self._clock, self._steps, self._spent_s = clock, steps, spent_s
        self._first_step = self._step = step
        self._began = self._window_began = clock()
        self._paused_s = self._window_paused_s = 0.0
        self._clear()

    def add(self, step: int, pairs: int, tokens: int, padded_tokens: int) -> None:
        """Count a finished step over all ranks; `padded_tokens` are the tokens computed, padding included."""
        self._step = step
        self._pairs += pairs
        self._tokens += tokens
        self._padded += padded_tokens

    def pause(self, seconds: float) -> None:
        """Leave out time that was not training: an evaluation, a checkpoint."""
        self._paused_s += seconds
        self._window_paused_s += seconds

    def read(self) -> dict[str, float]:
        """Return `perf/*` values of the window and begin the next; empty when nothing was counted."""
        elapsed_s = self._clock() - self._window_began - self._window_paused_s
        values: dict[str, float] = {}
        if self._tokens and elapsed_s > 0:
            values = {
                "perf/pairs_per_sec": self._pairs / elapsed_s,
                "perf/tokens_per_sec": self._tokens / elapsed_s,
                "perf/pad_frac": 1 - self._tokens / self._padded,
                "perf/peak_mem_gib": peak_memory_gib(),
                "perf/eta_s": self._eta_s(),
            }
        self._clear()
        return values

    @property
    def train_seconds(self) -> float:
        """Seconds spent on all training steps so far, pauses left out."""
        return self._spent_s + self._here_s

    @property
    def _here_s(self) -> float:
        return self._clock() - self._began - self._paused_s

    def _eta_s(self) -> float:
        """Return the seconds of training left at the mean pace of this process."""
        return self._here_s / (self._step - self._first_step) * (self._steps - self._step)

    def _clear(self) -> None:
        self._window_began, self._window_paused_s = self._clock(), 0.0
        self._pairs = self._tokens = self._padded = 0


def peak_memory_gib() -> float:
    """Return the most memory held so far, GiB: of the GPU where torch uses one, else of the process."""
    torch = sys.modules.get("torch")  # not imported: then no GPU is in use
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB on Linux
