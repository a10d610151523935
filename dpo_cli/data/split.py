"""Which part a row belongs to, by digest of its prompt: fixed under growth, order and the training seed."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from dpo_cli.types import Example, Text

Part = Literal["train", "eval", "test"]


def prompt_key(example: Example) -> str:
    """Give a digest of the prompt: equal for rows that ask the same, whatever surrounds their text in white space.

    A text without a prompt asks nothing, so each such text is its own.
    """
    return _digest(_canonical(example.prompt or example.completions[0]))


def pair_key(example: Example) -> str:
    """Give a digest of prompt and completions in their order."""
    return _digest(
        [_canonical(text) for text in (example.prompt, *example.completions)] + _label(example.label)
    )


def swapped_key(example: Example) -> str | None:
    """Give the `pair_key` of the opposite preference, or of the opposite label; None for a target, which has none."""
    if len(example.completions) == 1 and example.label is None:
        return None
    opposite = None if example.label is None else not example.label
    texts = (example.prompt, *reversed(example.completions))
    return _digest([_canonical(text) for text in texts] + _label(opposite))


def part_of(key: str, eval_share: float, test_share: float, seed: int) -> Part:
    """Give the part of a prompt; changing one share moves no prompt of the other part unless they meet."""
    position = fraction(f"{seed}/{key}")
    if position < test_share:
        return "test"
    return "eval" if position >= 1 - eval_share else "train"


def copies(key: str, weight: float) -> int:
    """Give how often a row stands in an epoch: the whole part of `weight`, and once more for that share of rows."""
    return int(weight) + (fraction(f"weight/{key}") < weight % 1)


def fraction(key: str) -> float:
    """Give a number in [0, 1) that is uniform over keys."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) / 2**48


def _label(label: bool | None) -> list[object]:
    return [] if label is None else [label]


def _canonical(text: Text) -> object:
    if isinstance(text, str):
        return text.strip()
    return [[turn["role"], turn["content"].strip(), turn.get("tool_calls")] for turn in text]


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, default=str).encode(), digest_size=16).hexdigest()
