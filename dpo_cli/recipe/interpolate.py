"""`${group.key}` in a recipe: another key's value. Nothing else between the braces: no resolver, so no code and no environment."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from dpo_cli.errors import Problem, RecipeError
from dpo_cli.recipe.convert import method_config
from dpo_cli.recipe.hints import default_of, hints_of, is_group, is_required
from dpo_cli.recipe.schema import Recipe
from dpo_cli.recipe.yaml_marks import Key, Tree, dotted

MAX_REFERENCES = 100
"""A chain of references costs its length squared to resolve."""

_PLAIN = re.compile(r"\$\{[A-Za-z_]\w*(?:\.\w+|\[\d+\])*\}")
_RESOLVERS = (
    "oc.env",
    "oc.coerce",
    "oc.create",
    "oc.decode",
    "oc.select",
    "oc.deprecated",
    "oc.dict.keys",
    "oc.dict.values",
)


def escaped(text: str) -> str:
    """Return the text such that a recipe that holds it reads it back as it is."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def interpolate(tree: Tree) -> list[Problem]:
    """Replace every `${group.key}` in the tree by that key's value, defaults included; a failed key joins `tree.failed`."""
    found = {key: text for key, text in _texts(tree.values, ()) if "${" in text}
    if len(found) > MAX_REFERENCES:
        what = f"{len(found)} values hold ${{...}}, more than {MAX_REFERENCES}"
        raise RecipeError.of(tree.mark(next(iter(found))).where, what, "write the values")
    problems = [problem for key, text in found.items() if (problem := _refusal(tree, key, text))]
    if problems:
        tree.failed.update(found)
    if tree.failed or not found:
        return problems
    # Imported where a recipe refers to another key: most do not, and it is a tenth of the time that a bad recipe takes.
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # `_refusal` lets no resolver through; one that is not there cannot be reached by a mistake there.
    for name in _RESOLVERS:
        OmegaConf.clear_resolver(name)
    defaults = default_values(Recipe, method_config(tree.values))
    whole = OmegaConf.create(_over(defaults, tree.values))
    for key in found:
        try:
            value = _resolved(whole, key)
        except OmegaConfBaseException as error:
            problems.append(_failure(tree, key, f"'{dotted(key)}': {str(error).splitlines()[0]}"))
            continue
        mark = tree.marks[key]
        is_text = value is None or isinstance(value, str | dict | list)
        tree.marks[key] = dataclasses.replace(mark, text=None if is_text else str(value))
        _parent(tree.values, key)[key[-1]] = value
    return problems


def default_values(cls: type, config: type | None) -> dict[str, Any]:
    """Return the defaults of a group and the groups below it as plain values; required keys are left out."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        hint = hints_of(cls, config)[field.name]
        if is_group(hint):
            values[field.name] = default_values(hint, config)
        elif not is_required(field) and hint is not Any:
            values[field.name] = default_of(field)
    return values


def _texts(value: Any, key: Key) -> list[tuple[Key, str]]:
    if isinstance(value, dict):
        return [pair for name, item in value.items() for pair in _texts(item, (*key, name))]
    if isinstance(value, list):
        return [pair for i, item in enumerate(value) for pair in _texts(item, (*key, i))]
    return [(key, value)] if isinstance(value, str) else []


def _refusal(tree: Tree, key: Key, text: str) -> Problem | None:
    """Refuse every unescaped `${` that does not start a plain `${group.key}`."""
    starts = [match for match in re.finditer(r"(\\*)\$\{", text) if len(match[1]) % 2 == 0]
    if all(_PLAIN.match(text, match.end(1)) for match in starts):
        return None
    what = f"'{dotted(key)}' is {text[:100]!r}: only another key of the recipe can stand in ${{...}}"
    return _failure(tree, key, what, "${group.key}, or \\${ for the characters themselves")


def _failure(tree: Tree, key: Key, what: str, fix: str = "") -> Problem:
    tree.failed.add(key)
    return Problem(tree.mark(key).where, what, fix)


def _resolved(whole: Any, key: Key) -> Any:
    from omegaconf import OmegaConf

    node = whole
    for part in key:
        node = node[part]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _over(base[k], v) if isinstance(base.get(k), dict) and isinstance(v, dict) else v
        for k, v in over.items()
    }
    return {**base, **both}


def _parent(values: Any, key: Key) -> Any:
    for part in key[:-1]:
        values = values[part]
    return values
