"""What is measured: a finished run, any model folder or hub name, or a recipe; and what it is measured against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dpo_cli import methods
from dpo_cli.errors import ModelError, Problem, RecipeError
from dpo_cli.modeling.hub import local_folder
from dpo_cli.recipe.find import shipped
from dpo_cli.recipe.load import Loaded, load, load_values
from dpo_cli.recipe.schema import Recipe
from dpo_cli.runs.folder import RECIPE
from dpo_cli.runs.status import read_status

Part = Literal["eval", "test"]
"""Which held-out rows."""
NONE = "reference.source=none"
_PLACEHOLDER = "/dev/null"
"""The path of `data.train` where nothing is trained."""
_FREE = (
    "data.eval",
    "data.cache",
    "method.",
    "reference.",
    "train.precision",
    "train.max_tokens_per_micro_batch",
    "model.attention",
)
"""Overrides that a finished run takes: not those that say what it was trained on."""


@dataclass(frozen=True)
class Subject:
    """A model to measure; its recipe's `model.name` is that model, and `reference.model` what it is compared with."""

    recipe: Recipe
    name: str
    """What to call it."""
    run: Path | None = None
    """The run folder, where it is a run's model."""
    has_own_reference: bool = True
    """Whether the reference is that of the run, whose values it pinned; not where an override names another."""
    is_compared: bool = True
    """Whether there is a reference: not for methods without one, nor with `reference.source=none`."""
    overrides: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """Return what a missing reference leaves out; empty where nothing is missing."""
        if self.is_compared or not methods.get(self.recipe.method.name).needs_reference:
            return ""
        return (
            "no reference: there is no implicit reward, pairs are ranked by summed log-prob;"
            " left out: drift, the reference's own accuracies, log-ratios, loss"
        )

    def result_name(self, split: str) -> str:
        """Return a name for results: the split's, and 6 hex of the overrides where there are some."""
        if not self.overrides:
            return split
        return f"{split}-{hashlib.blake2b(' '.join(self.overrides).encode(), digest_size=3).hexdigest()}"

    @property
    def has_training_data(self) -> bool:
        """Whether the recipe names rows to hold some out of."""
        return self.recipe.data.train[0].path != _PLACEHOLDER


def subject_of(target: str, overrides: Sequence[str] = ()) -> Subject:
    """Return what a run folder, a model folder, a hub name or a recipe stands for.

    Raises:
        RecipeError: unknown keys, a run's training changed in hindsight, a model without data, or a reference that is not named.
        ModelError: a run that has no model yet.
    """
    without_reference = NONE in overrides
    kept = [override for override in overrides if override != NONE]
    path = Path(target).expanduser()
    if (path / RECIPE).is_file():
        found = _of_run(path, kept)
    elif path.is_file() or target.removesuffix(".yaml") in shipped():
        found = _named(load(target, kept), target)
    else:
        found = _of_model(target, kept)
    is_compared = methods.get(found.recipe.method.name).needs_reference and not without_reference
    if is_compared:
        _check_reference(found)
    return replace(found, is_compared=is_compared, overrides=tuple(overrides))


def _of_run(path: Path, overrides: Sequence[str]) -> Subject:
    fix = "data.eval=[...] for other rows; dpo eval RECIPE model.name=... for everything else"
    wrong = [text for text in overrides if not text.removeprefix("~").startswith(_FREE)]
    if wrong:
        what = f"'{path}' is a run: what it was trained on cannot be changed"
        raise RecipeError(Problem(f"override {text.partition('=')[0]}", what, fix) for text in wrong)
    if local_folder(str(path)) != path / "model":
        status = read_status(path)
        state = f"its state is '{status.state}'" if status else "it has no status"
        raise ModelError.of(str(path), f"the run has no model/ yet ({state})", "run `dpo train` to the end")
    recipe = load(str(path / RECIPE), overrides).recipe
    start, reference = recipe.model, recipe.reference
    if reference.model is None:
        reference = replace(reference, model=start.name, revision=start.revision)
    saved = replace(
        start, name=str(path / "model"), revision=None, adapter=None, tokenizer=None, chat_template=None
    )
    names_other = any(text.startswith(("reference.model", "reference.revision")) for text in overrides)
    evaluated = replace(recipe, model=saved, reference=replace(reference, source="cache"))
    return Subject(evaluated, path.resolve().name, path, has_own_reference=not names_other)


def _named(loaded: Loaded, target: str) -> Subject:
    reference = replace(loaded.recipe.reference, source="cache")
    return Subject(replace(loaded.recipe, reference=reference), target, has_own_reference=False)


def _of_model(name: str, overrides: Sequence[str]) -> Subject:
    """Return a model that comes without a recipe: a reward model by its own config, else one with the implicit reward of DPO."""
    values = {"model": {"name": name}, "data": {"train": [{"path": _PLACEHOLDER}]}}
    folder = local_folder(name)
    if folder is not None and has_reward_head(folder):
        values["method"] = {"name": "reward"}
    recipe = load_values(values, name, overrides).recipe
    if folder is not None:
        recipe = replace(recipe, model=replace(recipe.model, name=str(folder)))
    return Subject(recipe, name, has_own_reference=False)


def _check_reference(found: Subject) -> None:
    """Check that the reference is named: a model compared with itself has only ties."""
    if found.recipe.reference.model is not None:
        return
    what = f"'{found.name}' is compared with a reference, and none is named"
    fix = f"reference.model=<the model it was trained from>, or {NONE} for what needs none"
    raise RecipeError.of("reference.model", what, fix)


def has_reward_head(folder: Path) -> bool:
    """Tell by its config whether a folder holds a reward model, or an adapter that is one."""
    for file, key in (("adapter_config.json", "task_type"), ("config.json", "architectures")):
        try:
            stated = json.loads((folder / file).read_text())[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if stated == "SEQ_CLS" or any("ForSequenceClassification" in str(name) for name in stated or ()):
            return True
    return False
