"""What forbids a recipe on this machine or in this command: reported together with the recipe's own contradictions."""

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
    if recipe.optim.name.endswith("_8bit"):
        what = f"'optim.name: {recipe.optim.name}'"
        otherwise = f"optim.name: {recipe.optim.name.removesuffix('_8bit')}"
        problems += package_problems("bitsandbytes", "optim.name", what, otherwise)
    asks_device = "bf16" in (recipe.train.precision, recipe.train.weights, recipe.reference.precision)
    asks_cuda = recipe.train.compile == "blocks" or recipe.train.checkpoint_activations == "offload"
    if not asks_device and not asks_cuda:
        return problems
    from dpo_cli.modeling.precision import bf16_problems, cuda_problems

    return [*problems, *bf16_problems(recipe), *cuda_problems(recipe)]


def reference(recipe: Recipe) -> list[Problem]:
    """List what a command that scores the reference misses: a method that has one, and what `machine` lists."""
    if methods.get(recipe.method.name).needs_reference:
        return machine(recipe)
    what = f"'{recipe.method.name}' compares with no reference, so there is nothing to score"
    return [Problem("method.name", what, "a method that does, such as dpo"), *machine(recipe)]
