"""Which folder a run gets: its own unfinished one, or a new one."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from dpo_cli import methods
from dpo_cli.errors import Problem, RecipeError, StorageError
from dpo_cli.files import commit
from dpo_cli.recipe.compare import different
from dpo_cli.recipe.describe import to_yaml
from dpo_cli.recipe.load import Loaded, load, run_name
from dpo_cli.recipe.schema import Recipe
from dpo_cli.runs.lock import FILE_NAME as LOCK
from dpo_cli.runs.status import Status, read_status

log = logging.getLogger("dpo_cli")

RECIPE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
CHOICES = "choices.json"
"""What the run chose by looking at machine and model."""
DATA = "data.json"
"""What became of the rows."""
EXTENDS = ("train.epochs", "train.max_steps")
"""Keys that a run may be given other values of on the way: it goes on to another end."""
PLUGIN = "plugin.json"
"""Module and digest of a method from outside the package."""


def recipe_of(name: str) -> Recipe | None:
    """Return the recipe of a run's folder; None for what is no run: a model's folder or a hub id."""
    path = Path(name) / RECIPE
    return load(str(path)).recipe if path.is_file() else None


@dataclass(frozen=True)
class Before:
    """A finished run's own words."""

    status: Status
    recipe: bytes


@dataclass(frozen=True)
class Folder:
    """A run folder and why it was chosen."""

    path: Path
    status: Status
    is_finished: bool = False
    """The run that was asked for is complete; nothing is left to do."""
    note: str = ""
    """One line for the user; empty for a plain new run."""
    before: Before | None = None
    """What the run was, where it is a finished one that goes on to another end."""


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
        status = _status(loaded, path)
        if resume == "auto" and status is not None:
            extended = _extension(loaded, path, status) if loaded.recipe.name is not None else []
            if status.state != "finished" or extended:
                return _continued(loaded, path, status, extended)
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
        commit(folder.path, RECIPE, to_yaml(recipe).encode())
        if digest := methods.source_digest(recipe.method.name):
            (folder.path / PLUGIN).write_text(
                json.dumps({"module": recipe.method.name, "sha256": digest}) + "\n"
            )
        folder.status.write()
    except OSError as error:
        raise StorageError.of(
            str(folder.path), f"cannot be written: {error.strerror}", "train.output_dir=<a folder>"
        ) from None


def put_back(folder: Folder) -> None:
    """Make a finished run what it was, where it did not get a step further: it was asked for what cannot be, or stopped on the way."""
    before = folder.before
    if before is None or folder.status.step > before.status.step:
        return
    before.status.write()
    try:
        commit(folder.path, RECIPE, before.recipe)
    except OSError as error:
        log.warning("%s cannot be written (%s)", folder.path / RECIPE, error.strerror)


def _status(loaded: Loaded, path: Path) -> Status | None:
    """Return a folder's status; where a kill or a flipped bit left none, that of an unfinished run, if the folder is this recipe's."""
    status = read_status(path)
    if status is not None:
        return status
    if path.is_dir() and all(inside.name == LOCK for inside in path.iterdir()):
        return Status(str(path), loaded.digest)
    try:
        is_ours = load(str(path / RECIPE)).digest == loaded.digest
    except RecipeError:
        return None
    return Status(str(path), loaded.digest) if is_ours else None


def _new(loaded: Loaded, path: Path, taken: Path | None) -> Folder:
    note = f"{taken} is there already: this run goes to {path}" if taken else ""
    return Folder(path, Status(str(path), loaded.digest), note=note)


def _named(loaded: Loaded, path: Path) -> Folder:
    status = read_status(path)
    if status is None:
        raise RecipeError.of("train.resume", f"no run in {path}", "a run folder, `auto` or `never`")
    extended = _extension(loaded, path, status)
    if status.state == "finished" and not extended:
        done = replace(status, run_dir=str(path))
        return Folder(path, done, is_finished=True, note=f"complete at step {status.step}: {path}")
    return _continued(loaded, path, status, extended)


def _continued(loaded: Loaded, path: Path, status: Status, extended: list[str]) -> Folder:
    """Return the folder to go on in; `path` is where the run is now: it may have been moved, or the user has."""
    following = Status(str(path), loaded.digest, attempt=status.attempt + 1, resumable=status.resumable)
    what = "finished" if status.state == "finished" else "unfinished"
    note = f"continuing the {what} run {path}" + (f" with {', '.join(extended)}" if extended else "")
    if status.state != "finished":
        return Folder(path, following, note=note)
    before = Before(replace(status, run_dir=str(path)), (path / RECIPE).read_bytes())
    return Folder(path, following, note=note, before=before)


def _extension(loaded: Loaded, path: Path, status: Status) -> list[str]:
    """Return how the run's end moves (`train.epochs=2`); empty where the recipe is the run's own.

    One written by a version with fewer keys is the same if no key differs.

    Raises:
        RecipeError: the run has another recipe.
        StorageError: it is finished and holds nothing to go on from.
    """
    if status.digest == loaded.digest:
        return []
    changed = different(load(str(path / RECIPE)).recipe, loaded.recipe)
    fix = "another `name` (or `name: null`), or undo the change"
    problems = [
        Problem(key, f"{path} has {key}={old}, the recipe now says {new}", fix)
        for key, (old, new) in changed.items()
        if key not in EXTENDS
    ]
    if problems:
        raise RecipeError(problems)
    if changed and status.state == "finished" and not any((path / CHECKPOINTS).glob("step-*/MANIFEST.json")):
        what = "is finished and holds no checkpoint to go on from (train.save_every=0)"
        raise StorageError.of(str(path), what, "another `name`: a new run of all steps")
    return [f"{key}={new}" for key, (_, new) in changed.items()]
