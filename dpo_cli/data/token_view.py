"""Token groups as text for people: which tokens are prompt, context or scored; nothing in it can drive a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dpo_cli.types import TokenGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["prompt", "context", "scored"]

LONGEST_CHARACTER = 4
"""Bytes, and so at most tokens, of one UTF-8 character."""


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one part; `pieces` are their texts, escaped."""

    part: Part
    ids: list[int]
    pieces: list[str]

    @property
    def text(self) -> str:
        """The run as one text."""
        return "".join(self.pieces)


def prompt_run(group: TokenGroup, tokenizer: PreTrainedTokenizerBase) -> Run:
    """Return the tokens that all completions share."""
    return _run("prompt", group.prompt, tokenizer)


def completion_runs(group: TokenGroup, k: int, tokenizer: PreTrainedTokenizerBase) -> list[Run]:
    """Return completion `k` as runs of scored tokens and of context between them."""
    ids, mask = group.completions[k], group.masks[k]
    cuts = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    parts = zip(np.split(ids, cuts), np.split(mask, cuts), strict=True)
    return [_run("scored" if scored[0] else "context", tokens, tokenizer) for tokens, scored in parts]


def escaped(text: str) -> str:
    r"""Return text with everything that is not printable (line ends, ESC, direction marks) spelled as `\n`, `\x1b`, ..."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _run(part: Part, ids: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> Run:
    return Run(part, ids.tolist(), [escaped(piece) for piece in _pieces(ids.tolist(), tokenizer)])


def _pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Decode token by token; tokens that share a character stay together."""
    pieces, pending = [], []
    for token in ids:
        pending.append(token)
        text = str(tokenizer.decode(pending))
        if "\ufffd" not in text or len(pending) == LONGEST_CHARACTER:
            pieces.append(text)
            pending = []
    return [*pieces, str(tokenizer.decode(pending))] if pending else pieces
