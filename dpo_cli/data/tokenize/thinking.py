"""Think blocks of answers: where they stand in a text, and messages without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dpo_cli.types import Example, Message, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Marks = tuple[str, str]
"""What opens and what closes a think block."""

USUAL: Marks = ("<think>", "</think>")
OTHERS: tuple[Marks, ...] = (
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
"""Marks that count only where the chat template writes them."""
FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that templates render as a think block."""


class Block(NamedTuple):
    """A think block of a text, its marks included: text[start:stop]."""

    start: int
    stop: int
    is_empty: bool
    """Whether nothing but white space stands between its marks, as some templates insert it."""


def marks_of(tokenizer: PreTrainedTokenizerBase) -> tuple[Marks, ...]:
    """Return the marks of think blocks: the usual ones, and those that the chat template writes."""
    template = str(tokenizer.chat_template or "")
    return (USUAL, *(marks for marks in OTHERS if marks[0] in template))


def is_marked(text: str, marks: Sequence[Marks]) -> bool:
    """Return whether a text spells any mark."""
    return any(mark in text for pair in marks for mark in pair)


def blocks(text: str, marks: Sequence[Marks]) -> list[Block]:
    """Return the think blocks of an answer, in order.

    One that is closed and not opened started with the answer (its opening belongs to the prompt); one that is not closed reaches to the end.
    """
    return sorted(block for pair in marks for block in _blocks(text, *pair))


def _blocks(text: str, opening: str, closing: str) -> list[Block]:
    found: list[Block] = []
    at = 0
    while True:
        start, end = text.find(opening, at), text.find(closing, at)
        inner = start + len(opening)
        if not found and end >= 0 and not 0 <= start < end:
            start = inner = 0
        elif start < 0:
            return found
        else:
            end = text.find(closing, inner)
        at = len(text) if end < 0 else end + len(closing)
        found.append(Block(start, at, not text[inner : at if end < 0 else end].strip()))


def thinks(completion: Text, marks: Sequence[Marks]) -> bool:
    """Return whether any answer of a completion holds a thought."""
    if isinstance(completion, str):
        return _has_thought(completion, marks)
    return any(
        _has_thought(turn["content"], marks) or any(turn.get(field) for field in FIELDS)
        for turn in completion
        if turn["role"] == "assistant"
    )


def without_thoughts(example: Example, marks: Sequence[Marks]) -> Example:
    """Return the example with the think blocks of all its answers removed, earlier ones in the prompt too; itself where there are none."""
    if not any(thinks(text, marks) for text in (example.prompt, *example.completions)):
        return example
    prompt = example.prompt if isinstance(example.prompt, str) else _without(example.prompt, marks)
    return replace(
        example, prompt=prompt, completions=tuple(_without(text, marks) for text in example.completions)
    )


def _has_thought(text: str, marks: Sequence[Marks]) -> bool:
    return any(not block.is_empty for block in blocks(text, marks))


def _without(completion: Text, marks: Sequence[Marks]) -> Text:
    if isinstance(completion, str):
        return without_blocks(completion, marks)
    return tuple(_turn_without(turn, marks) for turn in completion)


def _turn_without(turn: Message, marks: Sequence[Marks]) -> Message:
    if turn["role"] != "assistant":
        return turn
    kept = {key: value for key, value in turn.items() if key not in FIELDS}
    return {**kept, "content": without_blocks(turn["content"], marks)}


def without_blocks(text: str, marks: Sequence[Marks]) -> str:
    """Return the text between and behind its think blocks, without the line breaks that parted them."""
    found = blocks(text, marks)
    if not found:
        return text
    starts = [0, *(block.stop for block in found)]
    stops = [*(block.start for block in found), len(text)]
    return "".join(
        text[start:stop].lstrip("\n") if start else text[start:stop]
        for start, stop in zip(starts, stops, strict=True)
    )
