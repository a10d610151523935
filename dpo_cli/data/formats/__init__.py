"""The folder is the registry: a format is a file that declares `FORMAT`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from dpo_cli.errors import RecipeError

if TYPE_CHECKING:
    from dpo_cli.data.formats._base import Format

_FORMER = {
    "strings": "pairs",
    "messages": "pairs",
    "messages_implicit": "pairs",
    "hh": "pairs",
    "labelled_messages": "labelled",
}
"""Former names -> the format that reads such rows now; recipes keep them."""


def names() -> list[str]:
    """List the formats that a source's `format` can select."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Format:
    """Return the format of that name.

    Raises:
        RecipeError: no file of that name.
    """
    name = _FORMER.get(name, name)
    if name not in names():
        raise RecipeError.of(
            "data.train[].format",
            f"unknown format '{name}'",
            f"one of: auto, {', '.join(names())}, or a layout of `dpo formats`",
        )
    return importlib.import_module(f"{__name__}.{name}").FORMAT
