"""Plain values to dataclasses, reporting every unknown key and every bad value at once.

Strict: nothing is cast, but a whole number serves where a number is asked for and an unquoted scalar where a text is.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dpo_cli import methods
from dpo_cli.errors import Problem, RecipeError
from dpo_cli.recipe.hints import Option, expected, hints_of, is_group, is_required, keys, options, within
from dpo_cli.recipe.places import resolve
from dpo_cli.recipe.schema import Location, Recipe
from dpo_cli.recipe.yaml_marks import Key, Tree, dotted

_ELSEWHERE = {
    "learning_rate": "optim.lr",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "max_grad_norm": "optim.clip_norm",
    "lr_scheduler_type": "optim.schedule",
    "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.max_tokens_per_micro_batch",
    "save_steps": "train.save_every",
    "bf16": "train.precision",
    "precompute_ref_log_probs": "reference.source",
    "model_name_or_path": "model.name",
    "dataset_name": "data.train",
    "report_to": "log.trackers",
    "loss_type": "method.loss",
}
"""What other trainers call our keys."""


def method_config(values: Any) -> type | None:
    """Return the config class that `method.name` selects (dpo where it is not given), None where there is no such method."""
    group = values.get("method", {}) if isinstance(values, dict) else {}
    name = group.get("name", "dpo") if isinstance(group, dict) else "dpo"
    try:
        return methods.get(name).config if isinstance(name, str) else None
    except RecipeError:
        return None


def recipe_of(tree: Tree, known: list[Problem]) -> Recipe:
    """Return the recipe that a tree of plain values spells; paths in it are absolute. `known` problems are reported along.

    Raises:
        RecipeError: unknown or missing keys, values of the wrong type or out of range: all of them.
    """
    walk = _Walk(tree)
    recipe = walk.group(Recipe, tree.values, ())
    if known or walk.problems:
        raise RecipeError(sorted([*known, *walk.problems], key=_place))
    assert isinstance(recipe, Recipe), "a walk without problems gives a recipe"
    return recipe


class _Walk:
    """One walk over a tree, collecting what is wrong."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.problems: list[Problem] = []
        self.config = method_config(tree.values)
        self.known = [key for key, _, _ in keys(Recipe, self.config or methods.get("dpo").config)]

    def bad(self, key: Key, what: str) -> None:
        """Note a problem at the key's place."""
        self.problems.append(Problem(self.tree.mark(key).where, what))

    def group(self, cls: type, values: dict[str, Any], key: Key) -> Any:
        """Return an instance of the dataclass, or None once there are problems."""
        hints = hints_of(cls, self.config)
        meant = []
        for name in [name for name in values if name not in hints]:
            near = self.nearest(key, name, hints)
            meant += near[:1]
            hint = f", did you mean '{near[0]}'?" if near else f", expected one of {', '.join(hints)}"
            hint = ", write groups, as in `optim: {lr: 1e-6}`" if "." in name else hint
            self.bad((*key, name), f"unknown key {_quoted(dotted((*key, name)))}{hint}")
        given = {}
        for field in dataclasses.fields(cls):
            at, hint = (*key, field.name), hints[field.name]
            if field.name in values:
                given[field.name] = self.value(hint, values[field.name], at)
            elif is_required(field) and is_group(hint):
                given[field.name] = self.group(hint, {}, at)
            elif is_required(field) and dotted(at) not in meant:
                self.bad(at, f"'{dotted(at)}' is missing, expected {expected(hint)}")
        return None if self.problems or self.tree.failed else cls(**given)

    def value(self, hint: Any, value: Any, key: Key) -> Any:
        """Return the value as the annotation wants it, or None with a problem noted."""
        if key in self.tree.failed:
            return None
        if value == "???":
            self.bad(key, f"'{dotted(key)}' is '???', still to be given: {expected(hint)}")
            return None
        if key == ("method",) and self.config is None:
            name = value.get("name") if isinstance(value, dict) else value
            self.bad((*key, "name"), _why_no_method(name))
            return None
        for option in options(hint):
            origin, item_hint = get_origin(option.base) or option.base, (Any, *get_args(option.base))[-1]
            if is_group(origin) and isinstance(value, dict):
                return self.group(origin, value, key)
            if origin in (dict, Any) and isinstance(value, dict):
                return {name: self.value(item_hint, item, (*key, name)) for name, item in value.items()}
            if origin in (list, Any) and isinstance(value, list) and within(len(value), option.extras):
                return [self.value(item_hint, item, (*key, i)) for i, item in enumerate(value)]
            fits, taken = self.fit(option, value, key)
            if fits:
                return taken
        self.bad(key, f"'{dotted(key)}' is {described(value)}, expected {expected(hint)}")
        return None

    def fit(self, option: Option, value: Any, key: Key) -> tuple[bool, Any]:
        """Return whether a scalar fits the alternative, and give it in that type."""
        base, extras = option
        if base is str:
            mark = self.tree.marks.get(key)
            text = mark.text if mark and mark.text is not None and value is not None else value
            if not isinstance(text, str) or "\0" in text or not within(len(text), extras):
                return False, None
            folder = self.tree.mark(key).folder
            return True, _placed(text, extras, folder)
        if get_origin(base) is Literal:
            return any(value == word and type(value) is type(word) for word in get_args(base)), value
        if base is float and type(value) in (int, float):
            return math.isfinite(value) and within(value, extras), float(value)
        if base is int and type(value) is int:
            return within(value, extras), value
        if base is Any:
            return not isinstance(value, float) or math.isfinite(value), value
        return type(value) is base, value

    def nearest(self, key: Key, name: str, hints: dict[str, Any]) -> list[str]:
        """List the keys that were probably meant, the likeliest first."""
        leaf = name.rpartition(".")[2]
        near = [dotted((*key, match)) for match in difflib.get_close_matches(name, hints, 1)]
        near += [_ELSEWHERE[leaf]] if leaf in _ELSEWHERE else []
        near += [known for known in self.known if known.rpartition(".")[2] == leaf]
        near += [
            known
            for known in self.known
            if difflib.get_close_matches(leaf, [known.rpartition(".")[2]], 1, cutoff=0.8)
        ]
        return near


def _why_no_method(name: Any) -> str:
    if isinstance(name, str) and "." in name:
        try:
            methods.get(name)
        except RecipeError as error:
            return f"{error.problems[0].what}. Fix: {error.problems[0].fix}"
    return f"'method.name' is {described(name)}, expected {' | '.join(methods.names())}"


def _place(problem: Problem) -> tuple[bool, str, int]:
    """Order problems as the user reads: by file and line, then overrides."""
    name, _, line = problem.where.rpartition(":")
    return problem.where.startswith("override "), name, int(line) if line.isdigit() else 0


def _placed(text: str, extras: tuple[Any, ...], folder: Path) -> str:
    location = next((extra for extra in extras if isinstance(extra, Location)), None)
    return resolve(text, location, folder) if location else text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def described(value: Any) -> str:
    """Say in words what was given, control characters escaped."""
    if isinstance(value, str):
        return f"the text {_quoted(value)}"
    if isinstance(value, dict | list):
        return "a group of keys" if isinstance(value, dict) else f"a list of {len(value)}"
    words = {None: "empty (null)", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
