"""A whole conversation whose last answer is wanted or not."""

from __future__ import annotations

from dpo_cli.data.formats._base import (
    Format,
    Row,
    is_label,
    label,
    messages,
    split_last_answer,
    template_fields,
)
from dpo_cli.data.tokenize.turns import is_conversation
from dpo_cli.types import Example

COLUMNS = ("messages", "label")


def matches(row: Row) -> bool:
    """Return whether a label stands beside messages."""
    return is_conversation(row.get("messages")) and is_label(row.get("label"))


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return what follows the last user turn as the labelled answer.

    Raises:
        BadRow: a field is absent or of another kind, an unknown role, no answer at the end.
    """
    prompt, completion = split_last_answer(messages(row, "messages"), "messages")
    return Example(prompt, (completion,), source, **template_fields(row), label=label(row, "label"))


FORMAT = Format(
    name="labelled_conversation",
    fits="messages that end with the assistant, and label: true or false (thumbs from a chat's log)",
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
    sets=("ms-swift KTO data",),
)
