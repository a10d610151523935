"""Packages that only some recipes use: a machine without them does everything else, and says in one line which is missing where it counts.

Does not import them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util

from dpo_cli.errors import Problem


def is_installed(name: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution, or `not installed`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def package_problems(name: str, where: str, what: str, otherwise: str = "") -> list[Problem]:
    """Return the problem of a package that is not installed, none where it is.

    Args:
        name: the package, as `import` and `pip install` take it.
        where: the key or path that asks for it.
        what: what asks for it, to stand before "needs the package NAME".
        otherwise: another way out.
    """
    if is_installed(name):
        return []
    fix = f"pip install {name}" + (f", or {otherwise}" if otherwise else "")
    return [Problem(where, f"{what} needs the package {name}, which is not installed", fix)]
