"""Recipe files for tests."""

import textwrap
from pathlib import Path

import pytest

from dpo_cli.errors import RecipeError
from dpo_cli.recipe.load import Loaded, load

MINIMAL = "model: {name: org/model}\ndata: {train: [{path: rows.jsonl}]}\n"


def write(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load_text(folder: Path, text: str, *overrides: str) -> Loaded:
    return load(str(write(folder, text)), overrides)


def refusals(folder: Path, text: str, *overrides: str) -> list[str]:
    """Give the problems that the recipe is refused for, without the folder's path."""
    with pytest.raises(RecipeError) as caught:
        load_text(folder, text, *overrides)
    assert caught.value.code == 2
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]
