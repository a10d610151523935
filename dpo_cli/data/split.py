"""Which part a row belongs to, by digest of its prompt: fixed under growth, order and the training seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from dpo_cli.types import Example, Text

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Split

Part = Literal["train", "eval", "test"]


def prompt_key(example: Example) -> str:
    """Return a digest of the prompt: equal for rows that ask the same, whatever surrounds their text in white space.

    A text without a prompt asks nothing, so each such text is its own.
    """
    return _digest(_canonical(example.prompt or example.completions[0]))


def pair_key(example: Example) -> str:
    """Return a digest of prompt and completions in their order."""
    return _digest(
        [_canonical(text) for text in (example.prompt, *example.completions)] + _label(example.label)
    )


def swapped_key(example: Example) -> str | None:
    """Return the `pair_key` of the opposite preference, or of the opposite label; None for a target, which has none."""
    if len(example.completions) == 1 and example.label is None:
        return None
    opposite = None if example.label is None else not example.label
    texts = (example.prompt, *reversed(example.completions))
    return _digest([_canonical(text) for text in texts] + _label(opposite))


def part_of(key: str, eval_share: float, test_share: float, seed: int) -> Part:
    """Return the part of a prompt; changing one share moves no prompt of the other part unless they meet."""
    position = fraction(f"{seed}/{key}")
    if position < test_share:
        return "test"
    return "eval" if position >= 1 - eval_share else "train"


def none_held_out(keys: Collection[str], split: Split) -> str:
    """Say that a share of the prompts came to none of them, and which seed would hold out some and train on others, where one does."""

    def is_mixed(seed: int) -> bool:
        return {"train", "eval"} <= {part_of(key, split.eval, split.test, seed) for key in keys}

    seed = next(filter(is_mixed, range(split.seed + 1, split.seed + 101)), None)
    what = f"data.split.eval={split.eval:g} holds out no row: {len(keys):,} different prompts, each held out with all its rows or not"
    return (
        f"{what}; {'name a file in data.eval' if seed is None else f'data.split.seed={seed} holds out some'}"
    )


def copies(key: str, weight: float) -> int:
    """Return how often a row stands in an epoch: the whole part of `weight`, and once more for that share of rows."""
    return int(weight) + (fraction(f"weight/{key}") < weight % 1)


def fraction(key: str) -> float:
    """Return a number in [0, 1) that is uniform over keys."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) / 2**48


def _label(label: bool | None) -> list[object]:
    return [] if label is None else [label]


def _canonical(text: Text) -> object:
    if isinstance(text, str):
        return text.strip()
    return [[turn["role"], turn["content"].strip(), turn.get("tool_calls")] for turn in text]


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, default=str).encode(), digest_size=16).hexdigest()
