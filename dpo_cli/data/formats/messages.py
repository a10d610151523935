"""Chat messages with an explicit prompt."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, check_turns, is_messages, messages, template_fields
from dpo_cli.types import Example

COLUMNS = ("prompt", "chosen", "rejected")


def matches(row: Row) -> bool:
    """Say whether all three fields are messages and the completions do not repeat the prompt."""
    return all(is_messages(row.get(column)) for column in COLUMNS) and row["chosen"][0] != row["prompt"][0]


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the pair; turns of users and tools inside a completion stay in it as context.

    Raises:
        BadRow: a field is absent or no list of messages, a role is unknown, a completion does not start and end with the assistant.
    """
    prompt, chosen, rejected = (messages(row, column) for column in COLUMNS)
    check_turns(prompt, chosen, "chosen")
    check_turns(prompt, rejected, "rejected")
    return Example(prompt, (chosen, rejected), source, **template_fields(row))


FORMAT = Format(
    name="messages",
    fits="lists of messages in prompt, chosen, rejected (TRL's explicit conversational layout)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": [{"role": "user", "content": "Is the sea blue?"}],
        "chosen": [{"role": "assistant", "content": "Mostly, yes."}],
        "rejected": [{"role": "assistant", "content": "No idea."}],
    },
    is_text=False,
)
