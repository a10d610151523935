"""Where recipes are: a path, or the name of a recipe that ships with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

from dpo_cli.errors import RecipeError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_dir() -> Path:
    """Return the folder of the shipped recipes: inside the installed package, or the repository's own."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    return {path.stem: path for path in sorted(shipped_dir().glob("*.yaml"))}


def find(recipe: str, where: str = "RECIPE") -> Path:
    """Return the file that a path or a shipped recipe's name (with or without .yaml) stands for.

    Raises:
        RecipeError: no such file and no shipped recipe of that name; `where` names the place that asked.
    """
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError.of(
            where, f"{recipe!r} is a folder", f"a recipe file, such as {path / 'recipe.yaml'}"
        )
    names = shipped()
    name = recipe.removesuffix(".yaml")
    if name in names:
        return names[name]
    near = difflib.get_close_matches(Path(name).name, names, 1)
    fix = f"did you mean '{near[0]}'?" if near else f"a path, or one of {', '.join(names)}"
    raise RecipeError.of(where, f"no recipe {recipe!r}", fix)
