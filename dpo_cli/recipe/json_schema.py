"""The JSON schema of recipes, for completion and checks in an editor. `recipes/schema.json` is its output."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from dpo_cli import methods
from dpo_cli.recipe.describe import field_docs
from dpo_cli.recipe.hints import Option, default_of, hints_of, is_group, is_required, options
from dpo_cli.recipe.schema import Recipe

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}
_BOUNDS = {
    Gt: ("exclusiveMinimum", "gt"),
    Ge: ("minimum", "ge"),
    Lt: ("exclusiveMaximum", "lt"),
    Le: ("maximum", "le"),
}
_LENGTHS = {MinLen: ("min", "min_length"), MaxLen: ("max", "max_length")}


def json_schema() -> dict[str, Any]:
    """Return the schema: every key with its meaning, type and bounds, nothing else allowed."""
    schema = _group(Recipe)
    schema["properties"]["method"] = {
        "description": field_docs(Recipe)["method"],
        "anyOf": [_method(name) for name in methods.names()],
    }
    paths: dict[str, Any] = {"type": "string"}
    schema["properties"]["extends"] = {
        "description": "Recipes that this one changes: paths relative to this file, or builtin:NAME.",
        "anyOf": [paths, {"type": "array", "items": paths}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dpo recipe", **schema}


def _method(name: str) -> dict[str, Any]:
    schema = _group(methods.get(name).config)
    schema["properties"]["name"]["const"] = name
    return schema


def _group(cls: type) -> dict[str, Any]:
    """Return a dataclass as an object; nothing is required, since a parent or an override may give it."""
    hints, docs, properties = hints_of(cls), field_docs(cls), {}
    for field in dataclasses.fields(cls):
        alternatives = [_option(option) for option in options(hints[field.name])]
        one = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
        properties[field.name] = {"description": docs[field.name], **one}
        if not is_required(field) and not dataclasses.is_dataclass(default_of(field)):
            properties[field.name]["default"] = default_of(field)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _option(option: Option) -> dict[str, Any]:
    base, extras = option
    origin = get_origin(base)
    if is_group(base):
        return _group(base)
    if origin is Literal:
        return {"enum": list(get_args(base))}
    if origin is list:
        item = [_option(o) for o in options(get_args(base)[0])]
        return {"type": "array", "items": item[0], **_lengths("Items", extras)}
    if origin is dict:
        names, values = (options(part)[0] for part in get_args(base))
        known = {"propertyNames": _option(names)} if get_origin(names.base) is Literal else {}
        typed = {} if values.base is Any else {"additionalProperties": _option(values)}
        return {"type": "object", **known, **typed}
    if base is Any:
        return {}
    bounds = {
        name: getattr(e, field) for e in extras if type(e) in _BOUNDS for name, field in [_BOUNDS[type(e)]]
    }
    return {"type": _TYPES[base], **bounds, **_lengths("Length", extras)}


def _lengths(what: str, extras: tuple[Any, ...]) -> dict[str, int]:
    known = [(extra, *_LENGTHS[type(extra)]) for extra in extras if type(extra) in _LENGTHS]
    return {f"{side}{what}": getattr(extra, field) for extra, side, field in known}
