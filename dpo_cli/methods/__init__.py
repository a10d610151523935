"""The folder is the registry: a method is a file that declares `METHOD`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from dpo_cli.errors import RecipeError

if TYPE_CHECKING:
    from dpo_cli.methods._base import Method


def names() -> list[str]:
    """List the methods that a recipe's `method.name` can select."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Method:
    """Give the method of that name; only its own file is imported.

    Raises:
        RecipeError: no file of that name.
    """
    if name not in names():
        raise RecipeError.of("method.name", f"unknown method '{name}'", f"one of: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").METHOD
