"""What a diagnosis is, what is known of the run beside its curves, and means over the last logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

Row = Mapping[str, float]
"""A logged step: `step` and full metric names."""

EARLY = 0.2
"""Share of the steps up to which a run is young."""
RECENT_ROWS = 5
"""A running mean is over so many logs."""
HISTORY_ROWS = 20
"""What is usual, over so many."""
STUCK_STEPS = 20
"""Before this many steps a margin of zero is no news."""


@dataclass(frozen=True)
class Note:
    """A diagnosis: what is seen, the numbers that show it, and what to do."""

    what: str
    evidence: str
    action: str

    def __str__(self) -> str:
        """Return the note as one line."""
        return f"{self.what}: {self.evidence}; {self.action}"


@dataclass(frozen=True)
class Facts:
    """What the recipe says that a curve is judged by; None where it is not known."""

    method: str = "dpo"
    beta: float | None = None
    batch_size: int | None = None
    clip_norm: float | None = None
    is_adapter: bool = False
    reference: str | None = None
    """Another model than the policy's start."""
    starts_at_zero: bool = True
    """Whether margins are those of a policy against a reference that it starts from: 0 before the first step."""


def facts_of(recipe: Mapping[str, Any], starts_at_zero: bool = True) -> Facts:
    """Return the facts of a resolved recipe as plain values; of an empty one nothing is known."""
    if not recipe:
        return Facts(starts_at_zero=starts_at_zero)
    return Facts(
        recipe["method"]["name"],
        recipe["method"].get("beta"),
        recipe["train"]["batch_size"],
        recipe["optim"]["clip_norm"],
        recipe["model"]["adapter"] is not None,
        recipe["reference"]["model"],
        starts_at_zero,
    )


def is_young(rows: Sequence[Row], steps: int) -> bool:
    """Return whether a run is too young for curves that stay flat to be news."""
    return not rows or rows[-1]["step"] < max(STUCK_STEPS, EARLY * steps)


def recent(rows: Sequence[Row], name: str, n: int = RECENT_ROWS) -> float | None:
    """Return the mean of a metric over the last n logs that have it; None where none has."""
    values = last(rows, name, n)
    return fmean(values) if values else None


def last(rows: Sequence[Row], name: str, n: int) -> list[float]:
    """Return the last n values of a metric, the newest first."""
    return list(islice((row[name] for row in reversed(rows) if name in row), n))


def window(rows: Sequence[Row], n: int = RECENT_ROWS) -> str:
    """Return which steps a running mean is over."""
    return f"steps {rows[-min(n, len(rows))]['step']:.0f} to {rows[-1]['step']:.0f}"
