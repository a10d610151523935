"""A whole conversation: every assistant turn is to be imitated, but those that are marked not to be trained on."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, messages, split_first_answer, template_fields
from dpo_cli.data.tokenize.turns import is_conversation
from dpo_cli.types import Example

COLUMNS = ("messages",)
_OTHERS = ("chosen", "rejected", "label", "completion")


def matches(row: Row) -> bool:
    """Return whether there are messages and nothing that ranks or judges them."""
    return is_conversation(row.get("messages")) and not any(column in row for column in _OTHERS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return what comes before the first assistant turn as prompt, all that follows as completion.

    Raises:
        BadRow: not messages, an unknown role, no assistant turn, or none at the end.
    """
    prompt, completion = split_first_answer(messages(row, "messages"), "messages")
    return Example(prompt, (completion,), source, **template_fields(row))


FORMAT = Format(
    name="conversation",
    fits="messages that end with the assistant (UltraChat, ShareGPT, most SFT sets)",
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
    sets=("HuggingFaceH4/ultrachat_200k", "HuggingFaceTB/smoltalk"),
)
