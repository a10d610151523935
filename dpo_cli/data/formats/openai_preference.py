"""OpenAI's and Azure's layout for preference fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_cli.data.formats._base import (
    BadRow,
    Format,
    Row,
    check_turns,
    is_messages,
    messages,
    template_fields,
)
from dpo_cli.types import Example

COLUMNS = ("input", "preferred_output", "non_preferred_output")


def matches(row: Row) -> bool:
    """Say whether the input holds messages and both outputs are messages."""
    asked = row.get("input")
    return (
        isinstance(asked, Mapping)
        and is_messages(asked.get("messages"))
        and all(is_messages(row.get(column)) for column in COLUMNS[1:])
    )


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the input's messages and tools, and the two outputs.

    Raises:
        BadRow: a field is absent or of another type, an unknown role, an output that does not start and end with the assistant.
    """
    asked = row.get("input")
    if not isinstance(asked, Mapping):
        raise BadRow('"input" is not an object with "messages"')
    prompt = messages(asked, "messages")
    chosen, rejected = messages(row, "preferred_output"), messages(row, "non_preferred_output")
    check_turns(prompt, chosen, "preferred_output")
    check_turns(prompt, rejected, "non_preferred_output")
    return Example(
        prompt, (chosen, rejected), source, **template_fields({**row, "tools": asked.get("tools")})
    )


FORMAT = Format(
    name="openai_preference",
    fits="input.messages, preferred_output, non_preferred_output (preference fine-tuning of OpenAI and Azure)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "input": {"messages": [{"role": "user", "content": "Is the sea blue?"}], "tools": []},
        "preferred_output": [{"role": "assistant", "content": "Mostly, yes."}],
        "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
    },
    is_text=False,
)
