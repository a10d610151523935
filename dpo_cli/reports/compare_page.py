"""A comparison as files: a page for people, pictures for slides and papers, tables for scripts, spreadsheets and LaTeX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.compare.comparison import Comparison, Pair
from dpo_cli.metrics.scrub import scrub_values
from dpo_cli.reports.charts.png import MISSING, has_matplotlib, write_png
from dpo_cli.reports.charts.svg import document
from dpo_cli.reports.compare_charts import pictures_of
from dpo_cli.reports.compare_tables import COSTS, as_csv, as_latex, cells, heads, verdicts
from dpo_cli.reports.html.render import rendered

MOST_VERDICTS = 200
MOST_LETTERS = 300
"""Of a recipe's value on the page."""


def publish(found: Comparison, folder: Path) -> tuple[list[str], str]:
    """Write the files of a comparison; return their names, and in a line what is missing for those that are not there.

    Raises:
        StorageError: one cannot be written.
    """
    pictures = pictures_of(found)
    files = {
        "compare.html": rendered("compare.html", scrub_values(_facts(found)) | {"pictures": pictures}),
        "compare.json": (json.dumps(found.as_dict(), indent=1) + "\n").encode(),
        "compare.csv": as_csv(found).encode(),
        "compare.tex": as_latex(found).encode(),
        "compare.svg": document(pictures).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, payload in files.items():
            (folder / name).write_bytes(payload)
        if not has_matplotlib():
            return list(files), f"no compare.png: {MISSING}"
        write_png(pictures, folder / "compare.png")
    except OSError as error:
        raise StorageError.of(str(folder), f"cannot be written: {error.strerror}", "--out FOLDER") from None
    return [*files, "compare.png"], ""


def _facts(found: Comparison) -> dict[str, Any]:
    n_costs = len(COSTS)
    table = cells(found)
    lines = verdicts(found)
    more = len(lines) - MOST_VERDICTS
    return {
        "title": f"{len(found.entries)} models on the same {found.n:,} pairs",
        "what": found.entries[0].what,
        "prompts": f"{len(set(found.entries[0].rows.prompt.tolist())):,}",
        "answer": _answer(found),
        "heads": heads()[:-n_costs],
        "table": [row[:-n_costs] for row in table],
        "cost_heads": heads()[-n_costs:],
        "costs": [[row[0], *row[-n_costs:]] for row in table]
        if any(entry.cost for entry in found.entries)
        else [],
        "verdicts": lines[:MOST_VERDICTS],
        "verdicts_note": f"{more:,} more in compare.json" if more > 0 else "",
        "names": [entry.name for entry in found.entries if entry.recipe is not None],
        "diff": {
            key: {run: _short(value) for run, value in values.items()}
            for key, values in found.recipe_diff.items()
        },
        "notes": found.notes,
    }


def _answer(found: Comparison) -> str:
    """Say of two recipes whether one is better, else which model is the best and from which it cannot be separated, in one sentence."""
    if len(found.recipe_pairs) == 1 and found.recipe_pairs[0].p_adjusted is not None:
        return _of_recipes(found.recipe_pairs[0])
    best = found.best.name
    against = [pair for pair in found.pairs if best in (pair.a, pair.b)]
    alike = [pair.b if pair.a == best else pair.a for pair in against if not pair.separable]
    accuracy = f"{best} is right most often, in {found.best.rows.correct.mean():.1%} of pairs"
    if not alike:
        return f"{accuracy}, and separable from {'the other' if len(against) == 1 else 'all others'}."
    names = ", ".join(alike[:5]) + (f" and {len(alike) - 5} more" if len(alike) > 5 else "")
    rest = "" if len(alike) == len(against) else "; from the others it can"
    return f"{accuracy}, but cannot be separated from {names} on so many rows{rest}."


def _of_recipes(pair: Pair) -> str:
    better, worse = (pair.a, pair.b) if pair.found.difference >= 0 else (pair.b, pair.a)
    ahead = f"{abs(pair.found.difference):.1%} of the pairs, seeds pooled"
    if pair.separable:
        return f"Recipe {better} is better than {worse} by {ahead}."
    return f"Recipe {better} is ahead of {worse} by {ahead}; seeds and rows so few cannot tell them apart."


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"
