"""What the curves of a run say in plain words: each note with its evidence and the next action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, median, stdev

Row = Mapping[str, float]
"""A logged step: `step` and full metric names."""

EARLY = 0.2
"""Share of the steps up to which a run is young."""
RECENT_ROWS = 5
STUCK_MARGIN = 0.01
STUCK_STEPS = 20
"""A margin below `STUCK_MARGIN` (reward units) is no news before this many steps."""
SPIKE = 5.0
"""A gradient norm that many times the median of up to `HISTORY_ROWS` logs before it is a spike."""
HISTORY_ROWS = 20
COIN = 0.03
"""An accuracy that near to 0.5, or within its noise of it, is a coin's."""
NOISY = 0.1
"""Half the width of an interval that says nothing about a coin."""
LEARNT = 0.7
"""Training accuracy from which on the rows were learnt."""
MOVED = 0.1
"""Nats that the chosen log-prob has moved where something trains."""
SURE = 0.99
QUIET = 0.05
"""With an accuracy of `SURE` and at most this share of the first gradient norms, a run has nothing left to learn."""


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
    """Give the notes on a run of `steps` steps, the most pressing first.

    Args:
        rows: logged steps in order, with any of `train/rewards/*`, `train/logratio/*`, `train/lengths/*`, `train/loss`,
            `train/grad_norm`, `train/learning_rate`, `optim/clipped_frac`, `eval/rewards/accuracies*`, `eval/longer_wins`.
        steps: how many the run has in all.
    """
    found = [
        _coin(rows, steps),
        _stuck(rows, steps),
        _spike(rows),
        _early_margin(rows, steps),
        _length(rows),
        _saturated(rows),
        _displacement(rows),
    ]
    return [note for note in found if note]


def _stuck(rows: Sequence[Row], steps: int) -> Note | None:
    margin = _recent(rows, "train/rewards/margins")
    if margin is None or abs(margin) >= STUCK_MARGIN or _is_young(rows, steps):
        return None
    what, margin_text = "margin stuck near 0", f"{margin:+.4f} after {rows[-1]['step']:.0f} steps"
    norm, ratio = _recent(rows, "train/grad_norm"), _recent(rows, "train/logratio/chosen")
    if norm is not None and norm < 1e-7:
        return Note(
            what,
            f"{margin_text}, gradient norm {norm:.0e}",
            "nothing trains: check that the weights are not frozen",
        )
    if ratio is None or abs(ratio) < MOVED:
        rate = max((row["train/learning_rate"] for row in rows if "train/learning_rate" in row), default=None)
        moved = "" if ratio is None else f", chosen log-prob moved {ratio:+.2f} nats"
        rated = "" if rate is None else f", peak lr {rate:.0e}"
        return Note(what, margin_text + moved + rated, "raise optim.lr or the steps; then lower method.beta")
    evidence = f"{margin_text}, yet the chosen log-prob moved {ratio:+.2f} nats"
    return Note(
        what, evidence, "check that the reference is the model training started from, then the labels"
    )


def _spike(rows: Sequence[Row]) -> Note | None:
    """Look at the last few logs, so that a spike stays on the screen for a while; a norm that was not clipped did no harm."""
    logged = [row for row in rows if "train/grad_norm" in row]
    for at in range(len(logged) - 1, max(RECENT_ROWS, len(logged) - RECENT_ROWS) - 1, -1):
        row, before = logged[at], logged[max(0, at - HISTORY_ROWS) : at]
        norm, usual = row["train/grad_norm"], median(each["train/grad_norm"] for each in before)
        if norm <= SPIKE * usual or row.get("optim/clipped_frac", 1.0) == 0:
            continue
        loss = ""
        if "train/loss" in row and "train/loss" in before[-1]:
            loss = f", loss {before[-1]['train/loss']:.3g} before and {row['train/loss']:.3g} there"
        evidence = f"norm {norm:.3g} at step {row['step']:.0f}, {usual:.3g} is usual{loss}"
        action = "clipping bounded that step; if it comes again, look for rows unlike the rest (very long, repeating) and lower optim.lr"
        return Note("gradient spike", evidence, action)
    return None


def _coin(rows: Sequence[Row], steps: int) -> Note | None:
    """Look at accuracies only where something has moved: where nothing has, that is the news."""
    recent = _last(rows, "train/rewards/accuracies", HISTORY_ROWS)
    if _is_young(rows, steps) or len(recent) < 2 * RECENT_ROWS or not _has_moved(rows):
        return None
    accuracy, noise = fmean(recent), 2 * stdev(recent) / len(recent) ** 0.5
    low, high = (_recent(rows, f"eval/rewards/accuracies_ci_{end}", 1) for end in ("lo", "hi"))
    held = "" if low is None or high is None else f", held out {low:.3f} to {high:.3f} (95%)"
    if abs(accuracy - 0.5) < max(COIN, noise) and noise < NOISY:
        evidence = f"{accuracy:.3f} +- {noise:.3f} over the last {len(recent)} logs, after {rows[-1]['step']:.0f} steps{held}"
        action = "read some pairs with `dpo peek`: labels may be mixed up; if they are right, raise optim.lr or the steps"
        return Note("accuracy stuck at 0.5", evidence, action)
    if low is None or high is None or not low <= 0.5 <= high or high - low > 2 * NOISY or accuracy < LEARNT:
        return None
    action = "it learns rows by heart: more data, fewer train.epochs or a lower optim.lr; or held-out labels are mixed up"
    return Note("held-out accuracy stuck at 0.5", f"training {accuracy:.3f}{held}", action)


def _has_moved(rows: Sequence[Row]) -> bool:
    margin, ratio = _recent(rows, "train/rewards/margins"), _recent(rows, "train/logratio/chosen")
    return margin is None or abs(margin) >= STUCK_MARGIN or (ratio is not None and abs(ratio) >= MOVED)


def _saturated(rows: Sequence[Row]) -> Note | None:
    norms = [row["train/grad_norm"] for row in rows if "train/grad_norm" in row]
    accuracy, margin = _recent(rows, "train/rewards/accuracies"), _recent(rows, "train/rewards/margins")
    if accuracy is None or accuracy < SURE or len(norms) < 2 * RECENT_ROWS:
        return None
    first, now = median(norms[:RECENT_ROWS]), fmean(norms[-RECENT_ROWS:])
    if now > QUIET * first:
        return None
    told = "" if margin is None else f", margin {margin:+.2f}"
    evidence = f"training accuracy {accuracy:.3f}{told}, gradient norm {now:.2g}, {first:.2g} at the start"
    action = "nothing is left to learn from these rows: fewer train.epochs or a lower optim.lr, before the policy drifts for nothing"
    return Note("margins saturated", evidence, action)


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


def _is_young(rows: Sequence[Row], steps: int) -> bool:
    return not rows or rows[-1]["step"] < max(STUCK_STEPS, EARLY * steps)


def _recent(rows: Sequence[Row], name: str, n: int = RECENT_ROWS) -> float | None:
    values = _last(rows, name, n)
    return fmean(values) if values else None


def _last(rows: Sequence[Row], name: str, n: int) -> list[float]:
    return list(islice((row[name] for row in reversed(rows) if name in row), n))
