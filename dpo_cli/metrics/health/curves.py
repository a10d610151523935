"""Training curves that move, but not as they should: spikes, margins too large, log-probs that fall, clipping and clamping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from dpo_cli.metrics.health.note import (
    HISTORY_ROWS,
    RECENT_ROWS,
    Facts,
    Note,
    Row,
    is_young,
    last,
    recent,
    window,
)

SPIKE = 5.0
"""A gradient norm that many times the median of up to `HISTORY_ROWS` logs before it is a spike."""
SURE = 0.99
QUIET = 0.05
"""With an accuracy of `SURE` and at most this share of the first gradient norms, or of the first weight, nothing is left to learn."""
FIRST_TENTH = 0.1
ALWAYS = 0.9
"""Share of the steps from which on something happens most of the time."""
FAR = 25.0
"""A usual norm that many times `optim.clip_norm`. AdamW evens out a constant factor, and a norm of several times 1 is usual."""
COLLAPSE = -0.2
"""Nats a chosen token, since the start."""


def spike(rows: Sequence[Row]) -> Note | None:
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


def saturated(rows: Sequence[Row], facts: Facts) -> Note | None:
    """Say that nothing is left to learn: all pairs are right, and gradient or loss weight are a trace of what they were."""
    accuracy = recent(rows, "train/rewards/accuracies")
    norms, weights = (_first_and_now(rows, f"train/{name}") for name in ("grad_norm", "loss_weight"))
    if accuracy is None or accuracy < SURE or norms is None:
        return None
    share = weights[1] / weights[0] if weights and weights[0] else 1.0
    if norms[1] > QUIET * norms[0] and share > QUIET:
        return None
    margin = recent(rows, "train/rewards/margins")
    more = "" if margin is None else f", margin {margin:+.2f}"
    if weights and facts.batch_size:
        more += f", {share * facts.batch_size:.2g} effective pairs a step of {facts.batch_size}"
    evidence = f"training accuracy {accuracy:.3f}{more}, gradient norm {norms[1]:.2g}, {norms[0]:.2g} at the start ({window(rows)})"
    action = "nothing is left to learn from these rows: fewer train.epochs or a lower optim.lr, before the policy drifts for nothing"
    return Note("margins saturated", evidence, action)


def _first_and_now(rows: Sequence[Row], name: str) -> tuple[float, float] | None:
    """Return the median of the first logs and the mean of the last; None where the two overlap."""
    values = [row[name] for row in rows if name in row]
    if len(values) < 2 * RECENT_ROWS:
        return None
    return median(values[:RECENT_ROWS]), fmean(values[-RECENT_ROWS:])


def early_margin(rows: Sequence[Row], steps: int, facts: Facts) -> Note | None:
    """Say that the margin passes 1 in the first tenth; where margins do not start at 0, by how much it has changed since the first log."""
    logged = [(row["step"], row["train/rewards/margins"]) for row in rows if "train/rewards/margins" in row]
    start = 0.0 if facts.starts_at_zero or not logged else logged[0][1]
    for step, margin in logged:
        if step > FIRST_TENTH * steps:
            return None
        if margin - start > 1:
            since = "" if facts.starts_at_zero else f", {start:+.2f} at first"
            evidence = f"{margin:+.2f} at step {step:.0f} of {steps}{since}"
            action = "lower optim.lr or raise method.beta; look for completions that repeat in the data (`dpo audit`)"
            return Note("margin past 1 early", evidence, action)
    return None


def displacement(rows: Sequence[Row]) -> Note | None:
    """Say that chosen and rejected answers both become less likely, and what is left of the chosen ones' probability."""
    chosen, rejected = recent(rows, "train/logratio/chosen"), recent(rows, "train/logratio/rejected")
    if chosen is None or rejected is None or chosen > -0.5 or rejected > -0.5:
        return None
    kept = f"chosen answers keep {math.exp(chosen):.2g} of their probability"
    evidence = f"chosen {chosen:+.1f}, rejected {rejected:+.1f} nats since the start ({window(rows)}), {kept}"
    length = recent(rows, "train/lengths/chosen")
    if length and chosen / length < COLLAPSE:
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


def clipped(rows: Sequence[Row], steps: int, facts: Facts) -> Note | None:
    """Say that nearly every step is clipped, and far: then clipping no longer tells an outlier from the rest."""
    shares, norms = (last(rows, name, HISTORY_ROWS) for name in ("optim/clipped_frac", "train/grad_norm"))
    if facts.clip_norm is None or is_young(rows, steps) or len(norms) < RECENT_ROWS or not shares:
        return None
    share, usual = fmean(shares), median(norms)
    if share < ALWAYS or usual < FAR * facts.clip_norm:
        return None
    evidence = f"{share:.0%} of the steps ({window(rows, HISTORY_ROWS)}), norm {usual:.3g} is usual, optim.clip_norm {facts.clip_norm:g}"
    action = f"optim.clip_norm={2 * usual:.2g} would catch outliers alone; as it is every step has one size, however large its gradient"
    return Note("gradient clipped most of the time", evidence, action)


def clamped(rows: Sequence[Row], steps: int) -> Note | None:
    """Say that KTO's z, a divergence and so no less than 0, is clamped there nearly always."""
    share, drift = (recent(rows, f"train/kto/{name}", HISTORY_ROWS) for name in ("kl_clamped_frac", "kl"))
    if share is None or drift is None or is_young(rows, steps) or share < ALWAYS:
        return None
    evidence = f"in {share:.0%} of the steps ({window(rows, HISTORY_ROWS)}), {drift:+.2f} nats before"
    action = "usual on small sets: the loss is then apo_zero_unpaired's; method.loss=apo_zero_unpaired spares the forwards for z"
    return Note("KTO's z clamped at 0", evidence, action)
