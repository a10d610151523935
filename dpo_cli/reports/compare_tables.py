"""A comparison as text: sentences for people, CSV for a spreadsheet, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from dpo_cli.evaluate.compare.comparison import Comparison, Pair

COSTS = {
    "peak_memory_gib": "GiB",
    "ms_per_step": "ms/step",
    "tokens_per_s": "tokens/s",
    "models_loaded": "models",
}
"""What a run took, and how a table's head says it."""
MOST_ALIKE = 6
"""Pairs of models that cannot be separated, up to which each has a line."""
_LATEX = {
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
}


def heads() -> list[str]:
    """Return the heads of the table of runs."""
    return ["run", "accuracy", "95% interval", "against the best", "margin", "drift", *COSTS.values()]


def cells(found: Comparison) -> list[list[str]]:
    """Return the table of runs, the best first: a row of cells for each."""
    facts = sorted(found.as_dict()["runs"], key=lambda run: -run["accuracy"])
    return [
        [
            run["name"],
            f"{run['accuracy']:.3f}",
            _interval(run["ci"], ".3f"),
            _against(found, run["name"]),
            f"{run['margin']:+.3g}",
            "-"
            if run["drift"] is None
            else f"{run['drift']['chosen']:+.3g} / {run['drift']['rejected']:+.3g}",
            *(_cost(run["cost"].get(key)) for key in COSTS),
        ]
        for run in facts
    ]


def _cost(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _against(found: Comparison, name: str) -> str:
    if name == found.best.name:
        return "the best"
    pair = next(pair for pair in found.pairs if {pair.a, pair.b} == {name, found.best.name})
    sign = 1 if pair.a == name else -1
    ends = sorted(sign * end for end in pair.found.ci or ())
    return (
        f"{sign * pair.found.difference:+.3f}{' ' if ends else ''}{_interval(ends, '+.3f') if ends else ''}"
    )


def verdicts(found: Comparison) -> list[str]:
    """Return which can be separated on these rows, recipes first, then models: of many pairs of models that cannot be, one line."""
    recipes = [f"recipes  {_verdict(pair, found, len(found.recipe_pairs))}" for pair in found.recipe_pairs]
    alike = [pair for pair in found.pairs if not pair.separable and pair.p_adjusted is not None]
    folded = alike if len(alike) > MOST_ALIKE else []
    others = [
        f"models   {_verdict(pair, found, len(found.pairs))}" for pair in found.pairs if pair not in folded
    ]
    return [*recipes, *others, *([f"models   {_folded(folded, found)}"] if folded else [])]


def _folded(alike: Sequence[Pair], found: Comparison) -> str:
    largest = max(abs(pair.found.difference) for pair in alike)
    others = "other " if len(alike) < len(found.pairs) else ""
    return (
        f"none of the {len(alike)} {others}pairs is separable at n = {found.n:,}, after Holm's correction over {len(found.pairs)};"
        f" their differences go up to {largest:.3f} (each in compare.json)"
    )


def _verdict(pair: Pair, found: Comparison, n_pairs: int) -> str:
    prompts = len(set(found.entries[0].rows.prompt.tolist()))
    where = f"n = {found.n:,} pairs over {prompts:,} prompts"
    named = f"{pair.a} against {pair.b}: {pair.found.difference:+.3f}"
    if pair.found.ci is None or pair.p_adjusted is None:
        return f"{named}; not tested: that takes two prompts, and of recipes two seeds each"
    corrected = f", after Holm's correction over {n_pairs}" if n_pairs > 1 else ""
    tested = f"{_interval(pair.found.ci, '+.3f')}, p = {pair.p_adjusted:.2g}{corrected}"
    if pair.separable:
        return f"{named} {tested}: separable at {where}"
    reach = (pair.found.ci[1] - pair.found.ci[0]) / 2
    rest = f"that takes a difference of about {reach:.3f}" if reach else "they are right on the same pairs"
    return f"{named} {tested}: not separable at {where}; {rest}"


def recipe_lines(found: Comparison) -> list[str]:
    """Return the keys in which the runs' recipes differ, a line each."""
    names = [entry.name for entry in found.entries if entry.recipe is not None]
    return [
        f"{key}: {' | '.join(str(values[name]) for name in names)}"
        for key, values in found.recipe_diff.items()
    ]


def as_csv(found: Comparison) -> str:
    """Return the table of runs as CSV, numbers unrounded."""
    text = io.StringIO()
    runs: list[dict[str, Any]] = found.as_dict()["runs"]
    names = ["name", "accuracy", "ci_low", "ci_high", "ties", "margin", "ece", *COSTS]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        low, high = run["ci"] or (None, None)
        writer.writerow({**run, **run["cost"], "ci_low": low, "ci_high": high})
    return text.getvalue()


def as_latex(found: Comparison) -> str:
    """Return the table of runs as a LaTeX tabular (booktabs)."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(heads()) - 1)}}}", r"\toprule", _row(heads()), r"\midrule"]
    return "\n".join([*lines, *map(_row, cells(found)), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(texts: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(letter, letter) for letter in text) for text in texts) + r" \\"


def _interval(ci: Sequence[float] | None, spec: str) -> str:
    return f"[{ci[0]:{spec}}, {ci[1]:{spec}}]" if ci else "-"
