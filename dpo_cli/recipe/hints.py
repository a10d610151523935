"""What a field's annotation says: the alternatives it allows, their bounds, and both in words."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from dpo_cli.recipe.schema import Location, Recipe

NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    Any: "a value",
}

LOCATIONS = {
    "file": "a path",
    "model": "a folder or a hub id",
    "data": "a data file, a glob or a hub id",
    "run": "auto, never or a run folder",
    "output": "a folder",
}


class Option(NamedTuple):
    """One alternative of an annotation: the bare type and what `Annotated` adds to it."""

    base: Any
    extras: tuple[Any, ...] = ()


def options(hint: Any) -> list[Option]:
    """List the alternatives of an annotation, `X | None` as X and None."""
    if get_origin(hint) in (Union, types.UnionType):
        return [option for part in get_args(hint) for option in options(part)]
    if get_origin(hint) is Annotated:
        base, *extras = get_args(hint)
        return [Option(option.base, (*option.extras, *extras)) for option in options(base)]
    return [Option(hint)]


def is_group(base: Any) -> bool:
    """Return whether the bare type is a dataclass."""
    return isinstance(base, type) and dataclasses.is_dataclass(base)


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Return whether a dataclass field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field that is not required."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def hints_of(cls: type, config: type | None = None) -> dict[str, Any]:
    """Return a dataclass's annotations by field name; the recipe's `method` gets the method's `config` class."""
    hints = get_type_hints(cls, include_extras=True)
    if cls is Recipe and config is not None:
        hints["method"] = config
    return hints


def keys(cls: type, config: type, prefix: str = "") -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Yield (dotted key, class, field) for every key of a recipe with that method; list entries as `data.train[]`."""
    hints = hints_of(cls, config)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        yield key, cls, field
        for base, _ in options(hints[field.name]):
            item = get_args(base)[0] if get_origin(base) is list else base
            if is_group(item):
                yield from keys(item, config, f"{key}[]." if item is not base else f"{key}.")


def within(value: float, extras: tuple[Any, ...]) -> bool:
    """Return whether a number (or a list's length) keeps all bounds."""
    holds = {
        Gt: lambda bound: value > bound.gt,
        Ge: lambda bound: value >= bound.ge,
        Lt: lambda bound: value < bound.lt,
        Le: lambda bound: value <= bound.le,
        MinLen: lambda bound: value >= bound.min_length,
        MaxLen: lambda bound: value <= bound.max_length,
    }
    return all(holds[type(bound)](bound) for bound in extras if type(bound) in holds)


def expected(hint: Any) -> str:
    """Say in words what an annotation allows: `a number above 0, at most 1`."""
    return " or ".join(_option_in_words(option) for option in options(hint))


def _option_in_words(option: Option) -> str:
    base, extras = option
    if get_origin(base) is Literal:
        return " | ".join(map(str, get_args(base)))
    if get_origin(base) is list:
        lengths = {(MinLen,): "at least {}", (MinLen, MaxLen): "exactly {}"}.get(
            tuple(type(e) for e in extras), ""
        )
        size = next((e.min_length for e in extras if isinstance(e, MinLen)), 0)
        return f"a list of {lengths.format(size)} {_plural(get_args(base)[0])}".replace("  ", " ")
    if is_group(base) or get_origin(base) is dict:
        return "a group of keys"
    location = next((extra.kind for extra in extras if isinstance(extra, Location)), None)
    if location is not None:
        return LOCATIONS[location]
    if base is str and MinLen(1) in extras:
        return "text that is not empty"
    return f"{NAMES[base]} {bounds_in_words(extras)}".strip()


def bounds_in_words(extras: tuple[Any, ...]) -> str:
    """Say bounds in words: `above 0, at most 1`."""
    words = {Gt: "above {.gt}", Ge: "at least {.ge}", Lt: "below {.lt}", Le: "at most {.le}"}
    return ", ".join(words[type(bound)].format(bound) for bound in extras if type(bound) in words)


def _plural(hint: Any) -> str:
    option = options(hint)[0]
    if is_group(option.base):
        return "groups of keys"
    if get_origin(option.base) is Literal:
        return _option_in_words(option)
    names = {str: "texts", int: "whole numbers", float: "numbers"}
    return f"{names[option.base]} {bounds_in_words(option.extras)}".strip()
