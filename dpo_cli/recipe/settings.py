"""The user's own configuration, outside all recipes: what a recipe, which may come from anyone, must not decide.

`$XDG_CONFIG_HOME/dpo-cli/config.yaml` (`~/.config` by default); no file means the defaults.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from dpo_cli.errors import Problem, RecipeError

Trust = Literal["none", "group"]


@dataclass(frozen=True)
class Settings:
    """What the user decided for all runs."""

    trust: Trust = "none"
    """Whose reference stores are read: `none` takes the user's own only, `group` also one that others own or can write to."""
    plugins: tuple[str, ...] = ()
    """Packages that `method.name` may name modules of, as `--plugin` allows for one command."""


def settings_path() -> Path:
    """Return where the user's configuration lies."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "dpo-cli" / "config.yaml"


def load_settings() -> Settings:
    """Return the user's configuration.

    Raises:
        RecipeError: it cannot be read, or holds unknown keys or values: all of them.
    """
    from dpo_cli.recipe.yaml_marks import (
        parse,  # YAML takes as long to import as everything else in `dpo --help`
    )

    path = settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError.of(str(path), f"cannot be read: {error}", "fix or remove it") from None
    tree = parse(text, lambda line: f"{path}:{line}", path.parent)
    values = {} if tree.values is None else tree.values
    if not isinstance(values, dict):
        raise RecipeError.of(str(path), "the configuration is a group of keys", "as in `trust: group`")
    known = [field.name for field in fields(Settings)]
    problems = [_unknown(tree.mark((name,)).where, name, known) for name in values if name not in known]
    trust = values.get("trust", "none")
    if trust not in get_args(Trust):
        what = f"'trust' is {trust!r}, expected {' | '.join(get_args(Trust))}"
        problems.append(Problem(tree.mark(("trust",)).where, what))
    plugins = values.get("plugins", [])
    if not (isinstance(plugins, list) and all(isinstance(name, str) for name in plugins)):
        what = f"'plugins' is {plugins!r}, expected a list of package names"
        problems.append(Problem(tree.mark(("plugins",)).where, what))
    if problems:
        raise RecipeError(problems)
    return Settings(trust, tuple(plugins))


def _unknown(where: str, name: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, 1)
    fix = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
    return Problem(where, f"unknown key '{name}'", fix)
