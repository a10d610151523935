"""Where logged values go: sinks take full metric names (`train/loss`) and may lose values, never a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger("dpo_cli")


@dataclass(frozen=True)
class RunInfo:
    """What a sink may want to know before the first value."""

    name: str
    run_dir: Path
    steps: int
    first_step: int = 0
    """The step that the run goes on from; 0 for a new run."""
    attempt: int = 0
    """How often the run was resumed."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The resolved recipe as plain values."""
    starts_at_zero: bool = True
    """Whether margins are 0 before the first step: those of a policy against a reference that it starts from."""


class Sink(Protocol):
    """Takes the values of a step."""

    def start(self, info: RunInfo) -> None:
        """Get ready; called once, before `write`."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take values logged after `step` steps; a step may come twice (training, then evaluation)."""

    def close(self) -> None:
        """Finish; called once, also after a failed run."""


class Fanout:
    """Several sinks as one; what fails is named once and left out from then on, the rest go on."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        """Take the sinks in the order in which they are called."""
        self._sinks = list(sinks)

    def start(self, info: RunInfo) -> None:
        """Start all sinks."""
        for sink in list(self._sinks):
            self._guard(sink, partial(sink.start, info))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write to all sinks."""
        for sink in list(self._sinks):
            self._guard(sink, partial(sink.write, step, values))

    def close(self) -> None:
        """Close all sinks."""
        for sink in list(self._sinks):
            self._guard(sink, sink.close)

    def _guard(self, sink: Sink, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # the one place: whatever breaks in a report, the run goes on
            self._sinks.remove(sink)
            log.warning("%s stopped: %s: %s", type(sink).__name__, type(error).__name__, error)
