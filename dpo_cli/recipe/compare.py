"""What two recipes say differently."""

from __future__ import annotations

import dataclasses
from typing import Any

from dpo_cli.recipe.rules import INERT, INERT_TRAIN, flat
from dpo_cli.recipe.schema import Recipe


def different(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Give the keys that decide a result and differ: dotted key -> (old value, new value); None where one has no such key."""
    before, after = flat(dataclasses.asdict(old)), flat(dataclasses.asdict(new))
    inert = (*INERT, *(f"train.{name}" for name in INERT_TRAIN))
    keys = [key for key in {**before, **after} if not key.startswith(inert)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
