"""One prompt, one completion, and whether it is wanted: thumbs, as chat messages."""

from __future__ import annotations

from dpo_cli.data.formats._base import (
    Format,
    Row,
    check_turns,
    is_label,
    is_messages,
    label,
    messages,
    template_fields,
)
from dpo_cli.types import Example

COLUMNS = ("prompt", "completion", "label")


def matches(row: Row) -> bool:
    """Say whether prompt and completion are messages beside a label."""
    return (
        is_messages(row.get("prompt")) and is_messages(row.get("completion")) and is_label(row.get("label"))
    )


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the completion; turns of users and tools inside it stay as context.

    Raises:
        BadRow: a field is absent or of another type, a role is unknown, the completion does not start and end with the assistant.
    """
    prompt, completion = messages(row, "prompt"), messages(row, "completion")
    check_turns(prompt, completion, "completion")
    return Example(prompt, (completion,), source, **template_fields(row), label=label(row, "label"))


FORMAT = Format(
    name="labelled_messages",
    fits="lists of messages in prompt and completion, label true or false (TRL's unpaired conversational layout)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": [{"role": "user", "content": "Is the sea blue?"}],
        "completion": [{"role": "assistant", "content": "Mostly, yes."}],
        "label": True,
    },
    is_text=False,
    kind="labelled",
)
