"""What forbids a recipe on this machine or in this command: told together with the recipe's own contradictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli import methods
from dpo_cli.errors import Problem
from dpo_cli.packages import package_problems

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Recipe


def machine(recipe: Recipe) -> list[Problem]:
    """List what this machine lacks or cannot do; asks it only where the recipe leaves no choice."""
    problems: list[Problem] = []
    if "wandb" in recipe.log.trackers:
        problems += package_problems("wandb", "log.trackers", "'log.trackers'", "log.trackers: []")
    if recipe.model.adapter is not None:
        problems += package_problems("peft", "model.adapter", "'model.adapter'", "model.adapter: null")
    asks_device = "bf16" in (recipe.train.precision, recipe.reference.precision)
    if not asks_device and recipe.train.compile != "blocks":
        return problems
    from dpo_cli.modeling.precision import bf16_problems, compile_problems

    return [*problems, *bf16_problems(recipe), *compile_problems(recipe)]


def reference(recipe: Recipe) -> list[Problem]:
    """List what a command that scores the reference misses: a method that has one, and what `machine` lists."""
    if methods.get(recipe.method.name).needs_reference:
        return machine(recipe)
    what = f"'{recipe.method.name}' compares with no reference, so there is nothing to score"
    return [Problem("method.name", what, "a method that does, such as dpo"), *machine(recipe)]
