"""Fit a token group into `data.max_length`, by the policy of each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dpo_cli.data.adapt import last_answer
from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.types import TokenGroup

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Data


class Encoded(NamedTuple):
    """What became of an example: a group with notes, or the reason why there is none."""

    group: TokenGroup | None
    reason: Reason | None = None
    notes: Note = Note(0)


def fit(group: TokenGroup, notes: Note, config: Data, bos: int | None) -> Encoded:
    """Return the group cut to `max_length` tokens of prompt + completion, or the reason to drop it.

    `long_prompt: cut_start` keeps the prompt's end (and its BOS): as much as the longest completion leaves, but at
    least half of `max_length`. What is still too long is the completion's, by `long_completion`.

    Args:
        group: as the tokenizer gave it; every completion ends at its end token.
        notes: what was noted so far.
        config: the limits.
        bos: the BOS id, kept when the prompt's start is cut.
    """
    if _is_one(group.completions):
        return Encoded(None, Reason.IDENTICAL)
    prompt = group.prompt
    longest = max(len(ids) for ids in group.completions)
    if len(prompt) + longest > config.max_length and config.long_prompt == "cut_start":
        prompt = _cut_start(prompt, max(config.max_length - longest, config.max_length // 2), bos)
    room = config.max_length - len(prompt)
    if room < 1:
        return Encoded(None, Reason.LONG_PROMPT)
    if longest > room and config.long_completion == "drop":
        return Encoded(None, Reason.LONG_COMPLETION)
    fitted = replace(
        group,
        prompt=prompt,
        completions=tuple(ids[:room] for ids in group.completions),
        masks=tuple(mask[:room] for mask in group.masks),
    )
    if not all(fitted.scored):
        return Encoded(None, Reason.NOTHING_SCORED)
    if _is_one(fitted.completions):
        return Encoded(None, Reason.SAME_AFTER_CUT)
    if longest > room:
        notes |= Note.CUT | Note.END_LOST
        if any(last_answer(mask) >= room for mask in group.masks):
            notes |= Note.LAST_LOST
    if len(prompt) < len(group.prompt):
        notes |= Note.CUT
    return Encoded(fitted, None, notes)


def _is_one(completions: Sequence[np.ndarray]) -> bool:
    """Return whether several completions are all the same, so that none is preferred."""
    return len(completions) > 1 and len({ids.tobytes() for ids in completions}) == 1


def _cut_start(prompt: np.ndarray, room: int, bos: int | None) -> np.ndarray:
    if len(prompt) <= room:
        return prompt
    if room > 1 and prompt[0] == bos:
        return np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]])
    return prompt[len(prompt) - room :]
