"""Prompt and completions as plain text."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, template_fields, text
from dpo_cli.types import Example

COLUMNS = ("prompt", "chosen", "rejected")


def matches(row: Row) -> bool:
    """Say whether all three fields are text."""
    return all(isinstance(row.get(column), str) for column in COLUMNS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the pair as text, or as a user's and an assistant's turn.

    Raises:
        BadRow: a field is absent, null or not text.
    """
    prompt, chosen, rejected = (text(row, column) for column in COLUMNS)
    if not chat:
        return Example(prompt, (chosen, rejected), source)
    answers = tuple(({"role": "assistant", "content": answer},) for answer in (chosen, rejected))
    return Example(({"role": "user", "content": prompt},), answers, source, **template_fields(row))


FORMAT = Format(
    name="strings",
    fits="text columns prompt, chosen, rejected (UltraFeedback exports, hand-written sets)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "chosen": "Mostly, yes.", "rejected": "No idea."},
    is_text=True,
)
