"""What `dpo compare` compares: results that are there, and those of runs that nobody has measured yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dpo_cli import methods
from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.evaluate.compare.comparison import Entry
from dpo_cli.evaluate.pairs.results import EVAL, FACTS, is_older, read_results
from dpo_cli.evaluate.samples.reward_vs_kl import FRONTIER, read_frontier
from dpo_cli.metrics import terminal
from dpo_cli.recipe.schema import Recipe
from dpo_cli.runs.folder import RECIPE, recipe_of
from dpo_cli.runs.list import cost_of
from dpo_cli.runs.target import Part, Subject, subject_of


def entries_of(targets: Sequence[str], overrides: Sequence[str], split: Part) -> list[Entry]:
    """Return the results of runs and of folders that `dpo eval --out` wrote; runs without results are measured now.

    Raises:
        RecipeError: a folder that is named twice.
        UserError: what is wrong with a run, or in measuring it.
    """
    return [_entry(name, Path(target), overrides, split) for target, name in names_of(targets).items()]


def names_of(targets: Sequence[str]) -> dict[str, str]:
    """Call each target by its folder, or by all of its path where two folders are called the same.

    Raises:
        RecipeError: a folder that is named twice.
    """
    folders = [Path(target).resolve() for target in targets]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise RecipeError.of("RUN", f"'{twice.name}' is named twice", "each run once")
    short = [folder.name for folder in folders]
    return {
        target: name if short.count(name) == 1 else target
        for target, name in zip(targets, short, strict=True)
    }


def _entry(name: str, path: Path, overrides: Sequence[str], split: Part) -> Entry:
    run: Path | None = path
    if (path / FACTS).is_file():
        folder = path
        run = path.parent.parent if path.parent.name == EVAL else None
    elif (path / RECIPE).is_file():
        folder = _measured(subject_of(str(path), overrides), split)
    else:
        what = f"'{path}' holds neither a run nor results"
        raise StorageError.of("RUN", what, f"a run folder, or dpo eval {path} --out FOLDER and then FOLDER")
    results = read_results(folder)
    assert results is not None, "looked for, or just written"
    rows, facts = results
    recipe = recipe_of(str(run)) if run is not None else None
    if run is None or recipe is None:
        return Entry(name, rows, facts["what"], facts["ece"])
    cost = {**asdict(cost_of(run)), "models_loaded": models_loaded(recipe)}
    return Entry(name, rows, facts["what"], facts["ece"], recipe, cost, read_frontier(run / FRONTIER))


def models_loaded(recipe: Recipe) -> int:
    """Count the models that a run held in memory at once."""
    needed = methods.get(recipe.method.name).needs_reference
    shares = recipe.model.adapter is not None and recipe.reference.model is None
    return 2 if needed and recipe.reference.source == "live" and not shares else 1


def _measured(subject: Subject, split: Part) -> Path:
    """Return the folder of a run's results, measured now where there are none of its present model."""
    assert subject.run is not None, "only runs are measured"
    folder = subject.run / EVAL / subject.result_name(split)
    if (folder / FACTS).is_file() and not is_older(folder, subject.run / "model"):
        return folder
    # Imported here: what is measured already is compared without torch.
    from dpo_cli.engine.runtime import Runtime
    from dpo_cli.evaluate.pairs.run_eval import measure_into

    terminal.say(terminal.console(), f"measuring {subject.run}")
    runtime = Runtime(subject.recipe.train.precision)
    try:
        measure_into(subject, split, None, runtime)
    finally:
        runtime.close()
    return folder
