"""The text of a recipe, comments and all, such that it means the same from any folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dpo_cli.recipe.find import shipped_dir
from dpo_cli.recipe.load import load
from dpo_cli.recipe.rules import flat
from dpo_cli.recipe.yaml_marks import parse


def relocated(path: Path) -> str:
    """Return the file's text with its relative paths made absolute.

    Raises:
        RecipeError: the recipe does not load.
    """
    text = path.read_text(encoding="utf-8-sig")
    resolved = flat(dataclasses.asdict(load(str(path)).recipe))
    tree = parse(text, str, path.parent)
    lines = text.splitlines(keepends=True)
    lines_of = {".".join(map(str, key)): int(mark.where) - 1 for key, mark in tree.marks.items()}
    for key, value in flat(tree.values).items():
        target = resolved.get(key)
        if (
            isinstance(value, str)
            and isinstance(target, str)
            and target != value
            and Path(target).is_absolute()
        ):
            line = lines_of[key.replace("[", ".").replace("]", "")]
            lines[line] = lines[line].replace(value, target, 1)
    return "".join(lines).replace("$schema=schema.json", f"$schema={shipped_dir() / 'schema.json'}", 1)
