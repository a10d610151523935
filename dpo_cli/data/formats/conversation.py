"""A whole conversation in one list of messages: every assistant turn is to be imitated."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, is_messages, messages, split_first_answer, template_fields
from dpo_cli.types import Example

COLUMNS = ("messages",)
_OTHERS = ("chosen", "rejected", "label", "completion")


def matches(row: Row) -> bool:
    """Say whether there are messages and nothing that ranks or judges them."""
    return is_messages(row.get("messages")) and not any(column in row for column in _OTHERS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give what comes before the first assistant turn as prompt, all that follows as completion.

    Raises:
        BadRow: no list of messages, an unknown role, no assistant turn, or none at the end.
    """
    prompt, completion = split_first_answer(messages(row, "messages"), "messages")
    return Example(prompt, (completion,), source, **template_fields(row))


FORMAT = Format(
    name="conversation",
    fits="a list of messages that ends with the assistant (UltraChat, most SFT sets)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "messages": [
            {"role": "user", "content": "Is the sea blue?"},
            {"role": "assistant", "content": "Mostly, yes."},
        ]
    },
    is_text=False,
    kind="targets",
)
