"""Settings of a source as a person types them: keys of a recipe, or options of `dpo init`, `peek` and `audit`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Setting(NamedTuple):
    """One key of a source with its value: `columns.prompt`, `labels.a`, `format`, `better`, `gather`, `ignore`, `skip_null`, `chat`."""

    name: str
    value: str


Speller = Callable[[Sequence[Setting]], str]
"""Writes settings as one would type them."""

_OPTIONS = {
    "format": "--format",
    "better": "--better",
    "gather": "--gather",
    "ignore": "--ignore",
    "chat": "--chat",
}


def as_keys(key: str) -> Speller:
    """Return what writes settings as overrides of a recipe.

    Args:
        key: the source's place, such as `data.train[0]`.
    """

    def spell(settings: Sequence[Setting]) -> str:
        ignored = [setting.value for setting in settings if setting.name == "ignore"]
        overrides = [f"{key}.{name}={_value(name, value)}" for name, value in settings if name != "ignore"]
        return " ".join([*overrides, *([f"{key}.ignore={json.dumps(ignored)}"] if ignored else [])])

    return spell


def _value(name: str, value: str) -> str:
    if name.startswith("labels."):
        return json.dumps([value], ensure_ascii=False)
    return shlex.quote(value) if value else "''"


def as_options(settings: Sequence[Setting]) -> str:
    """Return settings as options of a command that takes data files."""
    return " ".join(map(_option, settings))


def _option(setting: Setting) -> str:
    name, value = setting
    kind, _, rest = name.partition(".")
    if kind == "columns":
        return f"--column {shlex.quote(f'{rest}={value}')}"
    if kind == "labels":
        return f"--label {shlex.quote(f'{rest}={value}')}"
    return "--skip-null" if name == "skip_null" else f"{_OPTIONS[name]} {shlex.quote(value)}"
