"""What the curves of a run say in plain words: each note with its evidence and the next action."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_cli.metrics.health import curves, held_out, stuck
from dpo_cli.metrics.health.note import Facts, Note, Row, facts_of

__all__ = ["Facts", "Note", "Row", "facts_of", "notes"]


def notes(rows: Sequence[Row], steps: int, facts: Facts | None = None) -> list[Note]:
    """Return the notes on a run of `steps` steps, the most pressing first.

    Args:
        rows: logged steps in order, with any of `train/rewards/*`, `train/logratio/*`, `train/lengths/*`, `train/loss`, `train/loss_weight`,
            `train/grad_norm`, `train/learning_rate`, `train/kto/*`, `optim/*`, `eval/rewards/accuracies*`, `eval/longer_wins`.
        steps: how many the run has in all.
        facts: what its recipe says; None: nothing is known.
    """
    known = facts or Facts()
    found = [
        stuck.coin(rows, steps),
        stuck.margin(rows, steps, known),
        curves.spike(rows),
        curves.early_margin(rows, steps, known),
        held_out.length(rows),
        held_out.gap(rows),
        curves.saturated(rows, known),
        curves.displacement(rows),
        curves.clipped(rows, steps, known),
        curves.clamped(rows, steps),
    ]
    return [note for note in found if note]
