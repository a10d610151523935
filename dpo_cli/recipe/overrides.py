"""`key=value` and `~key` from the command line, laid on a recipe's tree.

A value replaces what was there, a whole group too: `method={name: dpo}` starts from that method's defaults, and so does
`method.name=simpo` on a recipe of another method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_cli.errors import Problem, RecipeError
from dpo_cli.recipe.yaml_marks import Key, Mark, Tree, dotted, parse

_KEY = re.compile(r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*|\[\d{1,6}\])*")


def apply(tree: Tree, overrides: Sequence[str], folder: Path) -> list[Problem]:
    """Lay the overrides on the tree in their order; paths in them are relative to `folder`. Gives what is wrong with them."""
    problems: list[Problem] = []
    for text in overrides:
        try:
            _apply_one(tree, text, folder)
        except RecipeError as error:
            problems.extend(error.problems)
    return problems


def _apply_one(tree: Tree, text: str, folder: Path) -> None:
    name, equals, value = text.partition("=")
    if not _KEY.fullmatch(name.removeprefix("~")):
        fix = "KEY=VALUE, as in optim.lr=1e-6 or data.train[0].path=mine.jsonl"
        raise RecipeError.of(f"override {name[:100]!r}", "is no key", fix)
    where = f"override {name}"
    if name.startswith("~"):
        if equals:
            raise RecipeError.of(where, "`~` takes no value", f"{name} alone goes back to the default")
        return _delete(tree, _key(name[1:]), where)
    if not equals:
        raise RecipeError.of(where, "has no `=`", f"{name}=VALUE, or ~{name} for the default")
    if not value.strip():
        raise RecipeError.of(where, "has no value", f"{name}=null for none, {name}='\"\"' for an empty text")
    _set(tree, _key(name), _parse_value(value.strip(), where, folder), where)


def _parse_value(text: str, where: str, folder: Path) -> Tree:
    new = parse(text, lambda line: where, folder)
    is_cut = new.marks[()].text not in (None, text)  # YAML takes ` #` for a comment; a command line has none
    return Tree(text, {(): Mark(where, folder, text)}) if is_cut else new


def _key(name: str) -> Key:
    return tuple(int(index) if index else word for index, word in re.findall(r"\[(\d+)\]|([^.\[\]]+)", name))


def _set(tree: Tree, key: Key, new: Tree, where: str) -> None:
    group = _walk(tree, key[:-1], where, new.mark(()))
    _check_step(group, key, where)
    if key == ("method", "name") and group.get("name", "dpo") != new.values:
        _leave_method(tree, group)
    group[key[-1]] = new.values
    _forget(tree, key)
    tree.marks.update({(*key, *below): mark for below, mark in new.marks.items()})


def _leave_method(tree: Tree, group: dict[str, Any]) -> None:
    """Drop the knobs that files gave another method; DPO's beta is not SimPO's. Overrides were meant for this one."""
    for name in [name for name in group if tree.mark(("method", name)).origin != "override"]:
        del group[name]
        _forget(tree, ("method", name))


def _delete(tree: Tree, key: Key, where: str) -> None:
    if key not in tree.marks:
        raise RecipeError.of(where, f"'{dotted(key)}' is not set in the recipe", "leave it out")
    group = tree.values
    for part in key[:-1]:
        group = group[part]
    if isinstance(group, list):
        raise RecipeError.of(
            where, "takes one entry out of a list", f"{dotted(key[:-1])}=[...] with those to keep"
        )
    del group[key[-1]]
    _forget(tree, key)


def _walk(tree: Tree, key: Key, where: str, mark: Mark) -> Any:
    """Return the group or list at `key`; missing groups on the way are made."""
    group = tree.values
    for n, part in enumerate(key):
        _check_step(group, key[: n + 1], where)
        if isinstance(group, dict) and group.get(part) is None:
            group[part] = {}
            tree.marks[key[: n + 1]] = mark
        group = group[part]
    return group


def _check_step(group: Any, key: Key, where: str) -> None:
    part, around = key[-1], dotted(key[:-1])
    if isinstance(part, str) and not isinstance(group, dict):
        raise RecipeError.of(
            where,
            f"'{around}' is no group of keys",
            f"{around}[0].{part}" if isinstance(group, list) else around,
        )
    if isinstance(part, int) and not (isinstance(group, list) and part < len(group)):
        n = len(group) if isinstance(group, list) else 0
        raise RecipeError.of(
            where, f"'{around}' has {n} entries, none numbered {part}", f"{around}=[...] sets the whole list"
        )


def _forget(tree: Tree, key: Key) -> None:
    tree.marks = {k: mark for k, mark in tree.marks.items() if k[: len(key)] != key}
