"""A pair made of two columns that do not say which one is better: as text or as messages, like the layouts that do."""

from __future__ import annotations

from dpo_cli.data.formats import messages, messages_implicit, strings
from dpo_cli.data.formats._base import Row, is_messages, text
from dpo_cli.types import Example

LAYOUTS = (strings.FORMAT, messages.FORMAT, messages_implicit.FORMAT)


def is_pair(row: Row, one: str, other: str) -> bool:
    """Say whether two columns hold answers to the row's prompt."""
    return any(layout.matches(_as_pair(row, one, other)) for layout in LAYOUTS)


def pair(row: Row, chosen: str, rejected: str, source: str, chat: bool) -> Example:
    """Give the pair of two columns.

    Raises:
        BadRow: a field is absent, null, or neither text nor messages.
        SkipRow: what the layout that it is read as leaves out.
    """
    for column in (chosen, rejected):
        if not is_messages(row.get(column)):
            text(row, column)
    both = _as_pair(row, chosen, rejected)
    layout = next((layout for layout in LAYOUTS if layout.matches(both)), strings.FORMAT)
    return layout.parse(both, source, chat)


def _as_pair(row: Row, chosen: str, rejected: str) -> Row:
    return {**row, "chosen": row.get(chosen), "rejected": row.get(rejected)}
