"""A chosen and a rejected answer, or a list of each: text, messages, or whole conversations whose common turns are the prompt."""

from __future__ import annotations

from typing import Any

from dpo_cli.data.formats._base import Format, Row, SkipRow, present
from dpo_cli.data.formats._dialogue import are_answers, example_of, is_texts
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.tokenize.turns import is_conversation
from dpo_cli.types import Example

COLUMNS = ("chosen", "rejected")


def matches(row: Row) -> bool:
    """Return whether both answers stand beside a prompt, or hold one."""
    values = [row.get(column) for column in COLUMNS]
    if isinstance(row.get("prompt"), list) and are_answers(row, values):
        return True
    return are_answers(row, [answer for value in values for answer in _each(value)])


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the pair.

    Raises:
        BadRow: a field is absent, null or of another kind; see `example_of`.
        SkipRow: conversations that are the same, or differ before the assistant speaks; an empty list.
    """
    values = {column: present(row, column) for column in COLUMNS}
    # Beside a list of questions a list of texts is the answers to them, turn by turn.
    if not any(map(_is_list, values.values())) or is_texts(row.get("prompt")):
        return example_of(row, values, source, chat)
    sides = {column: _each(value) for column, value in values.items()}
    if not all(sides.values()):
        raise SkipRow(Reason.ALONE)
    answers = {f"{column}[{i}]": each for column, side in sides.items() for i, each in enumerate(side)}
    # Each chosen one is better than each rejected one; two of one side make no pair.
    ratings = tuple(float(column == "chosen") for column, side in sides.items() for _ in side)
    return example_of(row, answers, source, chat, ratings=ratings)


def _is_list(value: object) -> bool:
    """Return whether a value is a list of answers, not one answer."""
    return isinstance(value, list) and not is_conversation(value)


def _each(value: Any) -> list[Any]:
    return value if _is_list(value) else [value]


FORMAT = Format(
    name="pairs",
    fits="prompt, chosen and rejected: text or messages; no prompt where both are whole conversations or HH transcripts",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "chosen": "Mostly, yes.", "rejected": "No idea."},
    is_text=True,
    optional=("prompt",),
    sets=(
        "Anthropic/hh-rlhf",
        "allenai/reward-bench",
        "allenai/llama-3.1-tulu-3-8b-preference-mixture",
        "Skywork/Skywork-Reward-Preference-80K-v0.2",
        "trl-lib/ultrafeedback_binarized",
        "jondurbin/py-dpo-v0.1",
    ),
)
