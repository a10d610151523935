"""`dpo compare`: which of several models is better on the same rows, by how much, how sure that is, and what each took."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, SplitOption

if TYPE_CHECKING:
    from dpo_cli.evaluate.compare.comparison import Comparison


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]... [KEY=VALUE]...",
            help="Run folders or folders of `dpo eval --out`, those of --group may be left out; then changes to their recipes.",
        ),
    ] = None,
    split: SplitOption = "eval",
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RUN,RUN",
            help="Runs of one recipe, may be repeated; by default those that differ in train.seed only.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Where to write compare.html, svg, png, json, csv and tex."),
    ] = Path("compare"),
    as_json: JsonOption = False,
) -> None:
    """Compare models, and recipes over their seeds, on the same held-out rows. Runs without figures are measured first."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")  # see `dpo train`
    from dpo_cli.errors import RecipeError
    from dpo_cli.evaluate.compare.comparison import compare as decide
    from dpo_cli.evaluate.compare.inputs import entries_of, names_of
    from dpo_cli.metrics import terminal
    from dpo_cli.reports.compare_page import publish

    given = runs or []
    targets = [text for text in given if "=" not in text or Path(text).exists()]
    overrides = [text for text in given if text not in targets]
    targets += _left_out(_stated(group or []), targets)
    if not targets:
        raise RecipeError.of("RUN", "no run is named", "dpo compare RUN RUN, or --group NAME=RUN,RUN")
    groups = _groups(group, names_of(targets)) if group else None
    found = decide(entries_of(targets, overrides, split), groups)
    names, note = publish(found, out)
    if as_json:
        print(json.dumps(found.as_dict()))
        return
    print("\n".join(lines(found)))
    terminal.say(terminal.console(), f"wrote  {out}: {'  '.join(names)}")
    if note:
        terminal.say(terminal.console(), f"note: {note}")


def _groups(texts: list[str], names: dict[str, str]) -> dict[str, list[str]]:
    """Read NAME=RUN,RUN; a run goes by its path or by its name, as in `names` (path -> name)."""
    called = {Path(target).resolve(): name for target, name in names.items()}
    return {
        group: [called.get(Path(run).resolve(), run) for run in runs]
        for group, runs in _stated(texts).items()
    }


def _stated(texts: list[str]) -> dict[str, list[str]]:
    from dpo_cli.errors import RecipeError

    groups: dict[str, list[str]] = {}
    for text in texts:
        name, equals, runs = text.partition("=")
        if not (name and equals and runs):
            raise RecipeError.of("--group", f"'{text}' names no group of runs", "--group NAME=RUN,RUN")
        if name in groups:
            fix = f"all its runs at once: --group {name}=RUN,RUN"
            raise RecipeError.of("--group", f"'{name}' is named twice", fix)
        groups[name] = [run.strip() for run in runs.split(",")]
    return groups


def _left_out(groups: dict[str, list[str]], targets: list[str]) -> list[str]:
    """Return the folders of groups that are not named beside them."""
    named = {Path(target).resolve() for target in targets} | {Path(target).name for target in targets}
    runs = dict.fromkeys(run for members in groups.values() for run in members)
    return [run for run in runs if Path(run).is_dir() and not {Path(run).resolve(), run} & named]


def lines(found: Comparison) -> list[str]:
    """Print the table of runs, which differences are beyond noise, and in what the recipes differ."""
    from dpo_cli.cli.data.columns import table, width
    from dpo_cli.reports.compare_tables import cells, heads, recipe_lines, verdicts

    rows = cells(found)
    kept = [line for line in table(heads(), rows, ["" for _ in rows], width()) if line.strip()]
    diff = recipe_lines(found)
    return [
        f"{found.entries[0].what}, n = {found.n:,}",
        *kept,
        *verdicts(found),
        *(["recipes differ in:", *(f"  {line}" for line in diff)] if diff else []),
        *(f"note: {note}" for note in found.notes),
    ]
