"""Diagnoses that need more than curves: of the data before the first step, of the answers and the saved weights at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_cli import methods
from dpo_cli.metrics.health.note import Note
from dpo_cli.metrics.health.once import degenerate, repeated, rounding
from dpo_cli.train.setup import Parts


def at_start(parts: Parts) -> list[Note]:
    """Return the notes on the training rows."""
    rows = parts.data.train_rows
    # By hash: the rows' own bytes would stand in memory twice.
    note = repeated(
        (row.prompt_key, tuple(hash(ids.tobytes()) for ids in row.group.completions)) for row in rows
    )
    return [note] if note else []


def at_end(
    parts: Parts, samples: Sequence[Mapping[str, Any]], trained: float | None, bf16: float | None
) -> list[Note]:
    """Return the notes on the answers (`samples.json`) and on the mean held-out margin as trained and rounded to bf16."""
    before, after = ([sample[when] for sample in samples] for when in ("before", "after"))
    # Where margins do not start at 0, that of rounded weights says nothing of the update.
    is_update = methods.get(parts.recipe.method.name).needs_reference
    found = [degenerate(before, after), rounding(trained, bf16) if is_update else None]
    return [note for note in found if note]
