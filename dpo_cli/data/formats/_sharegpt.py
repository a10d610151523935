"""Turns in ShareGPT's words: `from` and `value` in place of `role` and `content`."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_cli.data.formats._base import BadRow, Row, messages
from dpo_cli.types import Message

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}


def is_sharegpt(value: object) -> bool:
    """Say whether a value is a turn or a list of turns in these words."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, Mapping) and {"from", "value"} <= turn.keys() for turn in turns
    )


def sharegpt(row: Row, column: str) -> tuple[Message, ...]:
    """Give a field that holds a turn or a list of turns as messages.

    Raises:
        BadRow: neither, an unknown speaker, or a value that is not text.
    """
    if not is_sharegpt(row.get(column)):
        raise BadRow(f'"{column}" is no turn and no list of turns with "from" and "value"')
    turns = row[column] if isinstance(row[column], list) else [row[column]]
    for i, turn in enumerate(turns):
        if turn["from"] not in ROLES:
            known = ", ".join(ROLES)
            raise BadRow(f'"{column}[{i}]" is from {turn["from"]!r}; known speakers: {known}')
    return messages({column: [{"role": ROLES[t["from"]], "content": t["value"]} for t in turns]}, column)
