"""A whole conversation in one list of messages, whose last answer is wanted or not."""

from __future__ import annotations

from dpo_cli.data.formats._base import (
    Format,
    Row,
    is_label,
    is_messages,
    label,
    messages,
    split_last_answer,
    template_fields,
)
from dpo_cli.types import Example

COLUMNS = ("messages", "label")


def matches(row: Row) -> bool:
    """Say whether a label stands beside messages."""
    return is_messages(row.get("messages")) and is_label(row.get("label"))


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give what follows the last user turn as the labelled completion.

    Raises:
        BadRow: a field is absent or of another type, an unknown role, no answer at the end.
    """
    prompt, completion = split_last_answer(messages(row, "messages"), "messages")
    return Example(prompt, (completion,), source, **template_fields(row), label=label(row, "label"))


FORMAT = Format(
    name="labelled_conversation",
    fits="a list of messages that ends with the assistant, and a label (thumbs from a chat's log)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "messages": [
            {"role": "user", "content": "Is the sea blue?"},
            {"role": "assistant", "content": "Mostly, yes."},
        ],
        "label": True,
    },
    is_text=False,
    kind="labelled",
)
