"""The folder is the registry: a method is a file that declares `METHOD`. A dotted name is a module of the user's own, if the user allowed it."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.errors import RecipeError

if TYPE_CHECKING:
    from dpo_cli.methods._base import Method

_allowed: set[str] = set()
"""Packages whose code the user lets methods come from: the one thing that a process decides once, before any recipe is read."""


def names() -> list[str]:
    """List the methods of this package that a recipe's `method.name` can select."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def allow(packages: Iterable[str]) -> None:
    """Let methods come from these packages or modules; the working directory is searched last.

    Only the command line (`--plugin`) and the user's own configuration lead here: a recipe alone runs no code.
    """
    _allowed.update(packages)
    if _allowed and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def get(name: str) -> Method:
    """Return the method of that name; only its own file is imported.

    Raises:
        RecipeError: no such method, not allowed, or a module without one.
    """
    if name in names():
        method: Method = importlib.import_module(f"{__name__}.{name}").METHOD
        return method
    package = name.partition(".")[0]
    if "." in name and not _is_plugin(name):
        what = f"method '{name}' is code outside this package, which a recipe alone may not run"
        raise RecipeError.of("method.name", what, f"--plugin {package} on the command line, if you trust it")
    if not _is_plugin(name):
        raise RecipeError.of("method.name", f"unknown method '{name}'", f"one of: {', '.join(names())}")
    return _imported(name)


def source_digest(name: str) -> str:
    """Return the digest of a plugin's file; empty for a method of this package, whose version says as much."""
    if name in names():
        return ""
    _imported(name)
    return hashlib.sha256(Path(str(sys.modules[name].__file__)).read_bytes()).hexdigest()


def _is_plugin(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in _allowed)


def _imported(name: str) -> Method:
    from dpo_cli.methods._base import Method

    try:
        method = getattr(importlib.import_module(name), "METHOD", None)
    except ImportError as error:
        raise RecipeError.of(
            "method.name", f"'{name}' cannot be imported: {error}", "check PYTHONPATH"
        ) from None
    if not isinstance(method, Method):
        raise RecipeError.of(
            "method.name", f"'{name}' declares no METHOD", "METHOD = Method(...), as in simpo.py"
        )
    return method
