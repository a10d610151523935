"""What two recipes say differently."""

from __future__ import annotations

import dataclasses
from typing import Any

from dpo_cli.recipe.rules import INERT, INERT_TRAIN, flat
from dpo_cli.recipe.schema import Recipe


def different(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys that decide a result and differ: dotted key -> (old value, new value); None where one has no such key."""
    before, after = deciding(old), deciding(new)
    return {
        key: (before.get(key), after.get(key))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    }


def deciding(recipe: Recipe) -> dict[str, Any]:
    """Return the keys that decide a result: dotted key -> value."""
    inert = (*INERT, *(f"train.{name}" for name in INERT_TRAIN))
    leaves = flat(dataclasses.asdict(recipe))
    return {key: value for key, value in leaves.items() if not key.startswith(inert)}
