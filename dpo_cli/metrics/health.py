"""What the curves of a run say in plain words: each note with its evidence and the next action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

Row = Mapping[str, float]
"""A logged step: `step` and full metric names."""

EARLY = 0.2
"""Share of the steps up to which a run is young."""
RECENT_ROWS = 5
STUCK_MARGIN = 0.01
STUCK_STEPS = 20
"""A margin below `STUCK_MARGIN` (reward units) is no news before this many steps."""


@dataclass(frozen=True)
class Note:
    """A diagnosis: what is seen, the numbers that show it, and what to do."""

    what: str
    evidence: str
    action: str

    def __str__(self) -> str:
        """Give the note as one line."""
        return f"{self.what}: {self.evidence}; {self.action}"


def notes(rows: Sequence[Row], steps: int) -> list[Note]:
    """Give at most two notes on a run of `steps` steps, the most pressing first.

    Args:
        rows: logged steps in order, with any of `train/rewards/*`, `train/logratio/*`, `train/lengths/*`,
            `train/grad_norm`, `train/learning_rate`, `eval/rewards/accuracies`, `eval/longer_wins`.
        steps: how many the run has in all.
    """
    found = [_stuck(rows, steps), _early_margin(rows, steps), _length(rows), _displacement(rows)]
    return [note for note in found if note][:2]


def _stuck(rows: Sequence[Row], steps: int) -> Note | None:
    margin = _recent(rows, "train/rewards/margins")
    if margin is None or abs(margin) >= STUCK_MARGIN or rows[-1]["step"] < max(STUCK_STEPS, EARLY * steps):
        return None
    what, margin_text = "margin stuck near 0", f"{margin:+.4f} after {rows[-1]['step']:.0f} steps"
    norm, ratio = _recent(rows, "train/grad_norm"), _recent(rows, "train/logratio/chosen")
    if norm is not None and norm < 1e-7:
        return Note(
            what,
            f"{margin_text}, gradient norm {norm:.0e}",
            "nothing trains: check that the weights are not frozen",
        )
    if ratio is None or abs(ratio) < 0.1:
        rate = max((row["train/learning_rate"] for row in rows if "train/learning_rate" in row), default=None)
        moved = "" if ratio is None else f", chosen log-prob moved {ratio:+.2f} nats"
        rated = "" if rate is None else f", peak lr {rate:.0e}"
        return Note(what, margin_text + moved + rated, "raise optim.lr or the steps; then lower method.beta")
    evidence = f"{margin_text}, yet the chosen log-prob moved {ratio:+.2f} nats"
    return Note(
        what, evidence, "check that the reference is the model training started from, then the labels"
    )


def _early_margin(rows: Sequence[Row], steps: int) -> Note | None:
    for row in rows:
        if row["step"] > EARLY * steps:
            return None
        if row.get("train/rewards/margins", 0.0) > 1:
            evidence = f"{row['train/rewards/margins']:+.2f} at step {row['step']:.0f} of {steps}"
            action = "lower optim.lr or raise method.beta; look for completions that repeat in the data"
            return Note("margin past 1 early", evidence, action)
    return None


def _length(rows: Sequence[Row]) -> Note | None:
    last = next(
        (row for row in reversed(rows) if "eval/rewards/accuracies" in row and "eval/longer_wins" in row),
        None,
    )
    if last is None:
        return None
    accuracy, longer = last["eval/rewards/accuracies"], last["eval/longer_wins"]
    trivial = max(longer, 1 - longer)
    if accuracy > trivial or trivial < 0.55:
        return None
    rule = "longer wins" if longer >= 0.5 else "shorter wins"
    return Note(
        "length explains the accuracy",
        f'held out {accuracy:.3f}, "{rule}" {trivial:.3f}',
        "balance lengths in the data",
    )


def _displacement(rows: Sequence[Row]) -> Note | None:
    chosen, rejected = _recent(rows, "train/logratio/chosen"), _recent(rows, "train/logratio/rejected")
    if chosen is None or rejected is None or chosen > -0.5 or rejected > -0.5:
        return None
    evidence = f"chosen {chosen:+.1f}, rejected {rejected:+.1f} nats since the start"
    length = _recent(rows, "train/lengths/chosen")
    if length and chosen / length < -0.2:
        action = "much: lower optim.lr or raise method.beta, and read some samples"
        return Note("both log-probs fall", f"{evidence}, {chosen / length:+.2f} a chosen token", action)
    if rejected < chosen:
        return Note(
            "both log-probs fall while the margin rises",
            evidence,
            "usual (likelihood displacement), nothing to do",
        )
    return Note(
        "both log-probs fall, the chosen one faster",
        evidence,
        "lower optim.lr; check that labels are not swapped",
    )


def _recent(rows: Sequence[Row], name: str) -> float | None:
    values = list(islice((row[name] for row in reversed(rows) if name in row), RECENT_ROWS))
    return fmean(values) if values else None
