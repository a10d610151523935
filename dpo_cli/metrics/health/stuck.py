"""Curves that do not move: a margin at 0, an accuracy at one half."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from dpo_cli.metrics.health.note import (
    HISTORY_ROWS,
    RECENT_ROWS,
    STUCK_STEPS,
    Facts,
    Note,
    Row,
    is_young,
    last,
    recent,
)

STUCK_MARGIN = 0.01
"""Reward units."""
MOVED = 0.1
"""Nats that the chosen log-prob has moved where something trains."""
COIN = 0.03
"""An accuracy that near to 0.5, or within its noise of it, is a coin's."""
NOISY = 0.1
"""Half the width of an interval that says nothing about a coin."""
LEARNT = 0.7
"""Training accuracy from which on the rows were learnt."""
STILL = 1e-7
"""A gradient norm, or a group's update relative to its learning rate, of nothing."""
RATES = {"sft": (1e-6, 1e-4), "reward": (1e-6, 1e-4), "orpo": (1e-6, 1e-4)}
"""Peak learning rates in use with all weights, method by method: papers and shipped recipes, 7B models at the lower end."""
USUAL_RATES = (3e-7, 5e-5)
ADAPTER_FACTOR = 10
"""An adapter's rates are that many times higher."""
_UPDATE = "optim/update/"


def margin(rows: Sequence[Row], steps: int, facts: Facts) -> Note | None:
    """Say that the margin stays at 0, with the causes that the evidence allows, the likeliest first."""
    value = recent(rows, "train/rewards/margins")
    if value is None or abs(value) >= STUCK_MARGIN or is_young(rows, steps):
        return None
    causes = _causes(rows, steps, facts, value)
    evidence = ", ".join(
        found for found, _ in [(f"{value:+.4f} after {rows[-1]['step']:.0f} steps", ""), *causes] if found
    )
    return Note("margin stuck near 0", evidence, "; then ".join(action for _, action in causes))


def is_still(values: Row, step: int) -> bool:
    """Return whether a log so late has a margin so small that it is worth a look at what the optimizer does."""
    return step >= STUCK_STEPS and abs(values.get("train/rewards/margins", 1.0)) < STUCK_MARGIN


def _causes(rows: Sequence[Row], steps: int, facts: Facts, value: float) -> list[tuple[str, str]]:
    """Return (evidence, action) of each cause."""
    norm, ratio = recent(rows, "train/grad_norm"), recent(rows, "train/logratio/chosen")
    frozen = [name for name in _groups(rows) if (recent(rows, _UPDATE + name) or 0.0) < STILL]
    if norm is not None and norm < STILL:
        return [(f"gradient norm {norm:.0e}", "nothing trains: check that the weights are not frozen")]
    if ratio is not None and abs(ratio) >= MOVED:
        if facts.beta is not None and abs(value) / facts.beta >= MOVED:
            evidence = f"method.beta {facts.beta:g} makes that of {value / facts.beta:+.2f} nats"
            return [(evidence, "a larger method.beta counts the same nats for more")]
        evidence = f"yet the chosen log-prob moved {ratio:+.2f} nats"
        named = f" ('{facts.reference}')" if facts.reference else ""
        return [
            (evidence, f"check that the reference{named} is the model training started from, then the labels")
        ]
    if frozen:
        return [(f"no update in {', '.join(frozen)}", "check that these weights are not frozen")]
    rate = max((row["train/learning_rate"] for row in rows if "train/learning_rate" in row), default=None)
    found = [] if ratio is None else [f"chosen log-prob moved {ratio:+.2f} nats"]
    if rate is not None:
        factor = ADAPTER_FACTOR if facts.is_adapter else 1
        low, high = (bound * factor for bound in RATES.get(facts.method, USUAL_RATES))
        kind = f"{facts.method} with an adapter" if facts.is_adapter else facts.method
        found.append(f"peak lr {rate:.0e} ({low:.0e} to {high:.0e} is usual for {kind})")
    found += [f"{name} moves {rows[-1][_UPDATE + name]:.2g} lr a step" for name in _groups(rows)]
    found.append(f"{steps - rows[-1]['step']:.0f} steps left")
    return [(", ".join(found), "raise optim.lr or the steps; then lower method.beta")]


def _groups(rows: Sequence[Row]) -> list[str]:
    return [name.removeprefix(_UPDATE) for name in rows[-1] if name.startswith(_UPDATE)]


def coin(rows: Sequence[Row], steps: int) -> Note | None:
    """Say that an accuracy is a coin's; only where something has moved: where nothing has, that is the news."""
    values = last(rows, "train/rewards/accuracies", HISTORY_ROWS)
    if is_young(rows, steps) or len(values) < 2 * RECENT_ROWS or not _has_moved(rows):
        return None
    accuracy, noise = fmean(values), 2 * stdev(values) / len(values) ** 0.5
    low, high = (recent(rows, f"eval/rewards/accuracies_ci_{end}", 1) for end in ("lo", "hi"))
    held = "" if low is None or high is None else f", held out {low:.3f} to {high:.3f} (95%)"
    is_better_held_out = (
        low is not None and low > 0.5
    )  # KTO's training rewards compare answers of different prompts
    if abs(accuracy - 0.5) < max(COIN, noise) and noise < NOISY and not is_better_held_out:
        evidence = f"{accuracy:.3f} +- {noise:.3f} over the last {len(values)} logs, after {rows[-1]['step']:.0f} steps{held}"
        action = "read some pairs with `dpo peek`: labels may be mixed up; if they are right, raise optim.lr or the steps"
        return Note("accuracy stuck at 0.5", evidence, action)
    if low is None or high is None or not low <= 0.5 <= high or high - low > 2 * NOISY or accuracy < LEARNT:
        return None
    action = "it learns rows by heart: more data, fewer train.epochs or a lower optim.lr; or held-out labels are mixed up"
    return Note("held-out accuracy stuck at 0.5", f"training {accuracy:.3f}{held}", action)


def _has_moved(rows: Sequence[Row]) -> bool:
    value, ratio = recent(rows, "train/rewards/margins"), recent(rows, "train/logratio/chosen")
    return value is None or abs(value) >= STUCK_MARGIN or (ratio is not None and abs(ratio) >= MOVED)
