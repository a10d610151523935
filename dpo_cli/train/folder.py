"""Which folder a run gets: its own unfinished one, or a new one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from dpo_cli import methods
from dpo_cli.errors import Problem, RecipeError, StorageError
from dpo_cli.recipe.compare import different
from dpo_cli.recipe.describe import to_yaml
from dpo_cli.recipe.load import Loaded, load, run_name
from dpo_cli.train.status import Status, read_status

RECIPE = "recipe.yaml"
PLUGIN = "plugin.json"
"""Module and digest of a method from outside the package."""


@dataclass(frozen=True)
class Folder:
    """A run folder and why it was chosen."""

    path: Path
    status: Status
    is_finished: bool = False
    """The run that was asked for is complete; nothing is left to do."""
    note: str = ""
    """One line for the user; empty for a plain new run."""


def choose_folder(loaded: Loaded) -> Folder:
    """Choose the folder: `train.resume` auto continues this recipe's unfinished run, `never` starts another, a path is that run.

    Writes nothing.

    Raises:
        RecipeError: the named run has another recipe, or is no run.
        StorageError: the output folder is a file.
    """
    output = Path(loaded.recipe.train.output_dir)
    if output.exists() and not output.is_dir():
        raise StorageError.of(str(output), "the output folder is a file", "train.output_dir=<a folder>")
    resume = loaded.recipe.train.resume
    if resume not in ("auto", "never"):
        return _named(loaded, Path(resume))
    taken: Path | None = None
    for number in count(1):
        path = output / (run_name(loaded) + (f"-{number}" if number > 1 else ""))
        if not path.exists():
            return _new(loaded, path, taken)
        status = read_status(path)
        if status is not None and loaded.recipe.name is not None:
            _check_same(loaded, path, status)
        if resume == "auto" and status is not None and status.state != "finished":
            return Folder(path, _next_attempt(path, status), note=f"continuing the unfinished run {path}")
        taken = path
    raise AssertionError("count never ends")


def create(folder: Folder, loaded: Loaded) -> None:
    """Make the folder, readable by its owner only, with the resolved recipe in it.

    Raises:
        StorageError: it cannot be written.
    """
    # Without the path of a run to go on with: the file stands for this run, from the start.
    recipe = replace(loaded.recipe, train=replace(loaded.recipe.train, resume="auto"))
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder.path / RECIPE).write_text(to_yaml(recipe))
        if digest := methods.source_digest(recipe.method.name):
            (folder.path / PLUGIN).write_text(
                json.dumps({"module": recipe.method.name, "sha256": digest}) + "\n"
            )
        folder.status.write()
    except OSError as error:
        raise StorageError.of(
            str(folder.path), f"cannot be written: {error.strerror}", "train.output_dir=<a folder>"
        ) from None


def _new(loaded: Loaded, path: Path, taken: Path | None) -> Folder:
    note = f"{taken} is there already: this run goes to {path}" if taken else ""
    return Folder(path, Status(str(path), loaded.digest), note=note)


def _named(loaded: Loaded, path: Path) -> Folder:
    status = read_status(path)
    if status is None:
        raise RecipeError.of("train.resume", f"no run in {path}", "a run folder, `auto` or `never`")
    _check_same(loaded, path, status)
    if status.state == "finished":
        done = replace(status, run_dir=str(path))
        return Folder(path, done, is_finished=True, note=f"complete at step {status.step}: {path}")
    return Folder(path, _next_attempt(path, status), note=f"continuing {path}")


def _next_attempt(path: Path, status: Status) -> Status:
    """Give the status to go on with; `path` is where the run is now: it may have been moved, or the user has."""
    return Status(str(path), status.digest, attempt=status.attempt + 1, resumable=status.resumable)


def _check_same(loaded: Loaded, path: Path, status: Status) -> None:
    """Raise where the run has another recipe; one written by a version with fewer keys is the same if no key differs."""
    if status.digest == loaded.digest:
        return
    fix = "another `name` (or `name: null`), or undo the change"
    theirs = load(str(path / RECIPE)).recipe
    problems = [
        Problem(key, f"{path} has {key}={old}, the recipe now says {new}", fix)
        for key, (old, new) in different(theirs, loaded.recipe).items()
    ]
    if problems:
        raise RecipeError(problems)
