"""What a run's page says first: how good the model is on held-out rows, how sure that is, and beside what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpo_cli.evaluate.pairs.results import EVAL, FACTS
from dpo_cli.reports.charts.chart import Chart, Intervals, Row, Series
from dpo_cli.runs.status import Status

RULES = {
    "longer_wins": "the longer answer wins",
    "shorter_wins": "the shorter answer wins",
    "reference_sum": "likelier under the reference",
    "reference_mean": "the same per token",
}
"""What needs no training, as a page calls it."""


def answer_of(run: Path, status: Status | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the first thing to know: the last `dpo eval`, else the run's own last evaluation, else the last one in its log; None without any."""
    facts = _evaluated(run) or (status.eval if status else None) or _logged(rows)
    if not facts or (facts.get("accuracy") is None and facts.get("loss") is None):
        return None
    accuracy, ci = facts.get("accuracy"), facts.get("ci")
    rules = _rules(facts)
    margins = status.margins if status else {}
    titles = {"trained": "margin as trained", "saved": "margin as saved", "bf16": "margin loaded in bf16"}
    return {
        "what": f"held-out {facts.get('what', 'reward accuracy')}"
        if accuracy is not None
        else "held-out loss",
        "n": f"n = {facts['n']:,}" if facts.get("n") else "",
        "figure": f"{accuracy:.3f}" if accuracy is not None else f"{facts['loss']:.4f}",
        "interval": f"{ci[0]:.3f} to {ci[1]:.3f}" if ci else "",
        "verdict": verdict(accuracy, ci, rules),
        "rows": [(titles[name], f"{value:+#.3g}") for name, value in margins.items() if name in titles],
        "accuracy": accuracy,
        "ci": ci,
        "rules": rules,
    }


def _evaluated(run: Path) -> dict[str, Any] | None:
    return next((facts for name, facts in _results(run) if name == EVAL), None)


def _results(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what `dpo eval` left in the run's folder, by name; what cannot be read is left out."""
    found = []
    for path in sorted((run / EVAL).glob(f"*/{FACTS}")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict) and facts.get("accuracy") is not None:
            found.append((path.parent.name, facts))
    return found


def _logged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the last evaluation in the log: of a run that was stopped on the way."""
    last = next((row for row in reversed(rows) if "eval/loss" in row), None)
    if last is None:
        return None
    name = "eval/rewards/accuracies" if "eval/longer_wins" in last else "eval/rewards/auc"
    low, high = (last.get(f"{name}_ci_{end}") for end in ("lo", "hi"))
    return {
        "accuracy": last.get(name),
        "ci": None if low is None or high is None else [low, high],
        "loss": last["eval/loss"],
        "longer_wins": last.get("eval/longer_wins"),
        "what": ("reward accuracy" if "eval/longer_wins" in last else "label AUC")
        + f" after step {last['step']}",
    }


def _rules(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracies of what needs no training, by the names of `RULES`."""
    found = facts.get("baselines")
    if not found:
        longer = facts.get("longer_wins")
        found = {
            "longer_wins": longer,
            "shorter_wins": None if longer is None else 1 - longer,
            "reference_sum": facts.get("reference_wins"),
        }
    return {name: float(found[name]) for name in RULES if found.get(name) is not None}


def verdict(accuracy: float | None, ci: Sequence[float] | None, rules: Mapping[str, float]) -> str:
    """Say in a sentence what an accuracy is worth beside a coin and beside what needs no training."""
    if accuracy is None:
        return "These rows have no pair or label to be right about: compare this loss with that of another run on the same rows."
    best = max(rules, key=lambda name: rules[name], default=None)
    bar, named = (rules[best], f"“{RULES[best]}”") if best and rules[best] > 0.5 else (0.5, "a coin")
    if ci is None:
        return f"Right in {accuracy:.1%} of cases, {named} in {bar:.1%}. No interval: that takes two prompts or more."
    if ci[0] > bar:
        return f"Better than anything that needs no training: the best of it, {named}, is right in {bar:.1%}, below the interval."
    if accuracy > bar:
        return (
            f"Not separable from {named}, which is right in {bar:.1%} without any training: that lies inside the interval."
            " More held-out rows would tell."
        )
    return f"No better than {named}, which is right in {bar:.1%} without any training."


def beside_of(answer: Mapping[str, Any] | None) -> Intervals | None:
    """Return the picture of the accuracy beside what needs no training; None without an accuracy."""
    if answer is None or answer["accuracy"] is None:
        return None
    ends = (float(answer["ci"][0]), float(answer["ci"][1])) if answer["ci"] else None
    rows = [Row("this model", answer["accuracy"], ends)]
    rows += [Row(RULES[name], value) for name, value in answer["rules"].items()]
    return Intervals(
        "Beside what needs no training", "share of held-out pairs that are right", rows, [(0.5, "a coin")]
    )


def measured_of(run: Path) -> list[list[str]]:
    """Return the rows of the table of what `dpo eval` measured: the whole set, then each named set of several."""
    rows = []
    for name, facts in _results(run):
        sets = facts.get("sets") or {}
        rows.append(_measured(name, facts))
        rows += [_measured(f"{name}: {part}", each) for part, each in sets.items() if len(sets) > 1]
    return rows


def _measured(name: str, facts: Mapping[str, Any]) -> list[str]:
    ci, matched = facts.get("ci"), facts.get("length_matched") or {}
    return [
        name,
        f"{facts['n']:,}",
        f"{facts['accuracy']:.3f}",
        f"{ci[0]:.3f} to {ci[1]:.3f}" if ci else "-",
        f"{facts.get('ties', 0):,}",
        f"{facts['margin']:+.3g}",
        _figure(facts.get("ece")),
        _figure(matched.get("accuracy")),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def measured_charts(run: Path) -> list[Chart | Intervals]:
    """Return the pictures of the run's own held-out rows: is it as sure as it is right, and what length explains."""
    facts = _evaluated(run)
    if facts is None:
        return []
    charts: list[Chart | Intervals] = []
    if bins := facts.get("reliability"):
        charts.append(reliability_chart(bins, facts.get("ece")))
    lengths = [
        Row(f"{name} (n = {each['n']:,})", each["accuracy"], tuple(each["ci"]) if each["ci"] else None)
        for name, each in (facts.get("by_length") or {}).items()
        if each.get("accuracy") is not None
    ]
    if lengths:
        charts.append(
            Intervals("Accuracy by length", "share of pairs that are right", lengths, [(0.5, "a coin")])
        )
    return charts


def reliability_chart(bins: Sequence[Mapping[str, Any]], ece: float | None) -> Chart:
    """Return the reliability picture: how often the model is right where it is so sure; on the diagonal it is as sure as it is right."""
    x, y = [float(each["confidence"]) for each in bins], [float(each["right"]) for each in bins]
    title = "As sure as it is right?" + ("" if ece is None else f" ECE {ece:.3f}")
    dots = Series("pairs about equally sure", x, y, kind="dots")
    return Chart(title, "how sure, sigma(|margin|)", "right", [dots], has_diagonal=True, y_range=(0.0, 1.0))
