"""A recipe file and overrides to a checked `Recipe`; precedence: defaults < `extends` parents < the file < overrides.

Needs no torch. Reads nothing but recipe files; runs no code from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_cli.errors import Problem, RecipeError
from dpo_cli.recipe import rules
from dpo_cli.recipe.convert import recipe_of
from dpo_cli.recipe.find import find, shipped
from dpo_cli.recipe.interpolate import interpolate
from dpo_cli.recipe.overrides import apply
from dpo_cli.recipe.schema import Recipe
from dpo_cli.recipe.yaml_marks import MAX_BYTES, Key, Mark, Tree, dotted, parse


@dataclass(frozen=True)
class Loaded:
    """A checked recipe and where it comes from."""

    recipe: Recipe
    path: Path
    """The recipe file, absolute."""
    origin: dict[str, str]
    """Dotted key -> `file:line` or `override`; keys that are not in it have their default."""
    digest: str
    """64 hex digits over every key that decides the result."""


def load(
    recipe: str, overrides: Sequence[str] = (), here: Callable[[Recipe], list[Problem]] = lambda recipe: []
) -> Loaded:
    """Return the recipe that a path or a shipped name stands for, with `key=value` and `~key` overrides.

    Args:
        recipe: the path or name.
        overrides: what the command line sets.
        here: what else forbids it, each placed at a dotted key: this machine, this command. Reported with the recipe's own contradictions.

    Raises:
        RecipeError: everything that is wrong with it, with the file and line of each.
    """
    path = Path(os.path.abspath(find(recipe)))
    return _checked(_read_chain(path, ()), path, overrides, here)


def load_values(values: dict[str, Any], name: str, overrides: Sequence[str]) -> Loaded:
    """Return the recipe of plain values, such as a model's name alone, with overrides; `name` stands for the file in messages.

    Raises:
        RecipeError: as `load`.
    """
    folder = Path.cwd()
    return _checked(Tree(values, {(): Mark(name, folder)}), folder / name, overrides)


def _checked(
    tree: Tree,
    path: Path,
    overrides: Sequence[str],
    here: Callable[[Recipe], list[Problem]] = lambda recipe: [],
) -> Loaded:
    problems = apply(tree, overrides, Path.cwd())
    problems += interpolate(tree)
    result = recipe_of(tree, problems)
    keys = {dotted(key): mark for key, mark in tree.marks.items() if key}
    contradictions = [*rules.problems(result), *here(result)]
    if contradictions:
        root = tree.mark(())
        raise RecipeError(Problem(keys.get(p.where, root).where, p.what, p.fix) for p in contradictions)
    return Loaded(result, path, {key: mark.origin for key, mark in keys.items()}, rules.digest(result))


def run_name(loaded: Loaded) -> str:
    """Return the run's name: the recipe's own, or `<recipe file>-<8 hex of the digest>`."""
    return rules.run_name(loaded.recipe, loaded.path.stem)


def shown(path: Path) -> str:
    """Write a path as the user would: relative to the working directory where it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _read_chain(path: Path, chain: tuple[Path, ...]) -> Tree:
    """Read a file over the files that it extends."""
    tree = _read(path)
    extends = tree.values.pop("extends", [])
    where = tree.mark(("extends",)).where
    parents = [extends] if isinstance(extends, str) else extends
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise RecipeError.of(
            where,
            "'extends' is no path and no list of paths",
            "a path relative to this file, or builtin:NAME",
        )
    chain = (*chain, path)
    merged = Tree({}, {(): tree.mark(())})
    for parent in parents:
        parent_path = _parent_path(parent, path, where)
        if parent_path in chain:
            names = " -> ".join(shown(p) for p in (*chain, parent_path))
            raise RecipeError.of(where, f"'extends' goes in a circle: {names}", "remove one of them")
        merge(merged, _read_chain(parent_path, chain))
    merge(
        merged, Tree(tree.values, {key: mark for key, mark in tree.marks.items() if key[:1] != ("extends",)})
    )
    return merged


def _parent_path(parent: str, path: Path, where: str) -> Path:
    name = parent.removeprefix("builtin:")
    if name != parent and name.removesuffix(".yaml") in shipped():
        return shipped()[name.removesuffix(".yaml")].resolve()
    if name != parent:
        raise RecipeError.of(
            where,
            f"'extends' names no shipped recipe: {parent!r}",
            f"builtin: and one of {', '.join(shipped())}",
        )
    target = Path(os.path.abspath(path.parent / Path(parent).expanduser()))
    if target.is_file():
        return target
    raise RecipeError.of(
        where, f"'extends' names no file: {shown(target)!r}", "a path relative to this file, or builtin:NAME"
    )


def _read(path: Path) -> Tree:
    """Read one file.

    Raises:
        RecipeError: not readable, too large, not UTF-8, not YAML, empty, or not a group of keys.
    """
    name = shown(path)
    tree = parse(_text(path, name), lambda line: f"{name}:{line}", path.parent)
    where = tree.mark(()).where
    if tree.values is None:
        fix = "start from a shipped one: `dpo recipes cp quickstart my.yaml`"
        raise RecipeError.of(where, "the recipe is empty", fix)
    if not isinstance(tree.values, dict):
        fix = "keys and values, as in `model: {name: ...}`"
        raise RecipeError.of(where, "a recipe is a group of keys, not a list or a text", fix)
    return tree


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        fix = "check the path and its permissions"
        raise RecipeError.of(name, f"cannot be read: {error.strerror}", fix) from error
    if len(content) > MAX_BYTES:
        raise RecipeError.of(name, f"larger than {MAX_BYTES} bytes", "a recipe is a page of settings")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError.of(
            f"{name}:{line}", f"byte {error.start} is not UTF-8", "save the file as UTF-8"
        ) from error


def merge(base: Tree, over: Tree, key: Key = ()) -> None:
    """Lay `over` on `base`: groups merge, lists and values replace, and another method starts from its own defaults."""
    for name, value in _at(over, key).items():
        here = (*key, name)
        old = _at(base, key).get(name)
        if isinstance(old, dict) and isinstance(value, dict) and not _is_another_method(here, old, value):
            base.marks[here] = over.marks[here]
            merge(base, over, here)
            continue
        _at(base, key)[name] = value
        base.marks = {k: mark for k, mark in base.marks.items() if k[: len(here)] != here}
        base.marks.update({k: mark for k, mark in over.marks.items() if k[: len(here)] == here})


def _is_another_method(key: Key, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a parent's knobs belong to another method: DPO's beta is not SimPO's."""
    return key == ("method",) and "name" in new and new["name"] != old.get("name", "dpo")


def _at(tree: Tree, key: Key) -> dict[str, Any]:
    values: Any = tree.values
    for part in key:
        values = values[part]
    assert isinstance(values, dict), "merge walks groups only"
    return values
