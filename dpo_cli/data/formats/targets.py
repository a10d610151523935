"""One prompt and the completion to imitate, as plain text."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, template_fields, text
from dpo_cli.types import Example

COLUMNS = ("prompt", "completion")


def matches(row: Row) -> bool:
    """Say whether both fields are text and nothing judges the completion."""
    return all(isinstance(row.get(column), str) for column in COLUMNS) and "label" not in row


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the target as text, or as an assistant's turn after a user's.

    Raises:
        BadRow: a field is absent, null or not text.
    """
    prompt, completion = (text(row, column) for column in COLUMNS)
    if not chat:
        return Example(prompt, (completion,), source)
    answer = ({"role": "assistant", "content": completion},)
    return Example(({"role": "user", "content": prompt},), (answer,), source, **template_fields(row))


FORMAT = Format(
    name="targets",
    fits="text columns prompt and completion (instruction data)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completion": "Mostly, yes."},
    is_text=True,
    kind="targets",
)
