"""What held-out rows say beside their accuracy: length explains it, or the training rows do not carry over."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_cli.metrics.health.note import HISTORY_ROWS, RECENT_ROWS, Note, Row, last, recent

GAP = 0.1
"""Between the training accuracy and the upper end of the held-out interval."""


def length(rows: Sequence[Row]) -> Note | None:
    """Say that the longer, or the shorter, answer would have been as good a guess."""
    found = next(
        (row for row in reversed(rows) if "eval/rewards/accuracies" in row and "eval/longer_wins" in row),
        None,
    )
    if found is None:
        return None
    accuracy, longer = found["eval/rewards/accuracies"], found["eval/longer_wins"]
    trivial = max(longer, 1 - longer)
    if accuracy > trivial or trivial < 0.55:
        return None
    rule = "longer wins" if longer >= 0.5 else "shorter wins"
    return Note(
        "length explains the accuracy",
        f'held out {accuracy:.3f}, "{rule}" {trivial:.3f}',
        "balance lengths in the data",
    )


def gap(rows: Sequence[Row]) -> Note | None:
    """Say that the training pairs are learnt and the held-out ones much less; a coin's accuracy has a note of its own."""
    high, low = (recent(rows, f"eval/rewards/accuracies_ci_{end}", 1) for end in ("hi", "lo"))
    values = last(rows, "train/rewards/accuracies", HISTORY_ROWS)[:RECENT_ROWS]
    if high is None or low is None or low <= 0.5 or len(values) < RECENT_ROWS:
        return None
    training = sum(values) / len(values)
    if training - high < GAP:
        return None
    evidence = (
        f"training {training:.3f} over the last {len(values)} logs, held out {low:.3f} to {high:.3f} (95%)"
    )
    action = "fewer train.epochs, a lower optim.lr or train.select=best, more data; see that both come from one source (`dpo audit`)"
    return Note("training accuracy does not carry over", evidence, action)
