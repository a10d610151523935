"""Pictures of a comparison: how good each model is, how far apart two of them are, and what being better costs in distance."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_cli.evaluate.compare.comparison import Comparison, Pair
from dpo_cli.evaluate.pairs.pair_metrics import drift, share
from dpo_cli.reports.charts.chart import Chart, Intervals, Picture, Row, Series

MOST_ROWS = 24
"""Of a picture of pairs: seven models make 21."""


def pictures_of(found: Comparison) -> list[Picture]:
    """Return the pictures of a comparison, the most important first."""
    pictures: list[Picture] = [_accuracies(found)]
    pictures += _differences("Recipes against each other", found.recipe_pairs)
    pictures += _differences("Models against each other", found.pairs)
    return pictures + _frontiers(found) + _moved(found)


def _accuracies(found: Comparison) -> Intervals:
    shares = sorted(
        ((entry.name, share(entry.rows)) for entry in found.entries),
        key=lambda each: -(each[1].accuracy or 0),
    )
    rows = [Row(name, each.accuracy or 0.0, each.ci) for name, each in shares]
    return Intervals(
        f"{found.entries[0].what.capitalize()}, n = {found.n:,}",
        "share of pairs, 95% interval over prompts",
        rows,
    )


def _differences(title: str, pairs: Sequence[Pair]) -> list[Picture]:
    """Return the differences with their intervals; one that holds 0 says nothing."""
    if not pairs:
        return []
    rows = [
        Row(f"{pair.a} \u2212 {pair.b}", pair.found.difference, pair.found.ci, not pair.separable)
        for pair in pairs[:MOST_ROWS]
    ]
    left_out = f" (the first {MOST_ROWS} of {len(pairs)})" if len(pairs) > MOST_ROWS else ""
    named = "difference of accuracies; hollow: not separable"
    return [Intervals(title + left_out, named, rows, [(0.0, "no difference")], "+.3f")]


def _frontiers(found: Comparison) -> list[Picture]:
    """Return reward against KL, a picture for each judge; none where nobody sampled and judged."""
    names = dict.fromkeys(point.what for entry in found.entries for point in entry.frontier)
    return [
        Chart(
            f"What distance buys: {what}",
            "log-ratio to the reference, nats a sample (the KL at temperature 1)",
            "",
            [
                Series(
                    entry.name,
                    [p.kl for p in here],
                    [p.reward for p in here],
                    [p.reward_ci for p in here],
                    "dots",
                )
                for entry in found.entries
                if (here := sorted((p for p in entry.frontier if p.what == what), key=lambda p: p.kl))
            ],
        )
        for what in names
    ]


def _moved(found: Comparison) -> list[Picture]:
    """Return accuracy against the log-ratio on the data's answers, where all models have a reference."""
    moved = [(entry, drift(entry.rows), share(entry.rows)) for entry in found.entries]
    series = [
        Series(entry.name, [far["chosen"]], [each.accuracy], [each.ci], "dots")
        for entry, far, each in moved
        if far is not None and each.accuracy is not None
    ]
    if len(series) < len(found.entries):
        return []
    return [
        Chart(
            "Accuracy and how far the model moved",
            "log-ratio of chosen answers to the reference, nats (no KL)",
            "",
            series,
        )
    ]
