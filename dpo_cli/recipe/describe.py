"""Descriptions of a recipe and its keys: the resolved YAML, what differs from the defaults, what a key means."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dpo_cli import methods
from dpo_cli.errors import RecipeError
from dpo_cli.recipe.hints import default_of, expected, hints_of, is_group, is_required, keys
from dpo_cli.recipe.interpolate import escaped
from dpo_cli.recipe.load import Loaded
from dpo_cli.recipe.schema import Recipe
from dpo_cli.recipe.yaml_marks import scalar


class Change(NamedTuple):
    """A key that is not at its default."""

    key: str
    value: Any
    default: Any
    """None also where the key has no default."""
    origin: str
    """`file:line` or `override`."""


def to_yaml(recipe: Recipe) -> str:
    """Write the resolved recipe as YAML that loads as the same recipe."""
    values = dataclasses.asdict(recipe)
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write shared values twice: the loader takes no anchors."""
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Quote what the loader would not read as text, and escape what it would replace."""
        style = None if isinstance(scalar(text), str) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", escaped(text), style)


_Dumper.add_representer(str, _Dumper.represent_text)


def changed(loaded: Loaded) -> list[Change]:
    """List the keys that a recipe or an override moved away from their defaults."""
    return [
        Change(key, value, None if is_required(field) else default_of(field), _origin(loaded, key))
        for key, value, field in _leaves(loaded.recipe)
        if is_required(field) or value != default_of(field)
    ]


def _leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    for field in dataclasses.fields(group):
        key, value = f"{prefix}{field.name}", getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for i, item in enumerate(value):
                yield from _leaves(item, f"{key}[{i}].")
        else:
            yield key, value, field


def _origin(loaded: Loaded, key: str) -> str:
    while key and key not in loaded.origin:
        key = re.sub(r"(?:\.?[^.\[\]]+|\[\d+\])$", "", key)
    return loaded.origin.get(key, "")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, on one line."""
    module = ast.parse(inspect.getsource(inspect.getmodule(cls) or cls))
    body = next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    ).body
    return {
        field.target.id: re.sub(r"\s+", " ", str(doc.value.value))
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }


def explain(key: str) -> str:
    """Return what a key means, what it may be and its default; for a group, what its keys mean.

    Raises:
        RecipeError: no such key.
    """
    wanted = re.sub(r"\[\d+\]", "[]", key)
    found = _all_explained()
    if wanted in found:
        below = [
            text for name, text in found.items() if re.fullmatch(rf"{re.escape(wanted)}(\[\])?\.\w+", name)
        ]
        return "\n".join([found[wanted], *below])
    leaf = [name for name in found if name.rpartition(".")[2] == wanted.rpartition(".")[2]]
    near = leaf or difflib.get_close_matches(wanted, found, 1)
    fix = f"did you mean '{near[0]}'?" if near else f"a group: {', '.join(hints_of(Recipe))}"
    raise RecipeError.of("KEY", f"unknown key {key[:100]!r}", fix)


def _all_explained() -> dict[str, str]:
    """Return key -> text; what two methods say differently of one key stands under the name of each."""
    texts_of: dict[str, dict[str, list[str]]] = {}
    for method in methods.names():
        for key, text in _explained(method).items():
            texts_of.setdefault(key, {}).setdefault(text, []).append(method)
    return {
        key: "\n".join(
            text if len(texts) == 1 else f"[{', '.join(who)}] {text}" for text, who in texts.items()
        )
        for key, texts in texts_of.items()
    }


def _explained(method: str) -> dict[str, str]:
    config = methods.get(method).config
    return {key: _described(key, cls, field, config) for key, cls, field in keys(Recipe, config)}


def _described(key: str, cls: type, field: dataclasses.Field[Any], config: type) -> str:
    hint, doc = hints_of(cls, config)[field.name], field_docs(cls)[field.name]
    if is_group(hint):
        return f"{key}\n    {doc}"
    if (
        key == "method.name"
    ):  # the one default that is each method's own: described once, with what may stand there
        own = "or a module of your own (--plugin)"
        return f'{key}: {" | ".join(methods.names())}, {own}; default "dpo"\n    {doc}'
    default = "required" if is_required(field) else f"default {json.dumps(default_of(field))}"
    return f"{key}: {expected(hint)}; {default}\n    {doc}"


def header(path: Path) -> str:
    """Return the first comment of a recipe file: what it is for."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("# ") and "$schema=" not in line), "")
