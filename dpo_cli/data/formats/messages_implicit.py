"""Two whole conversations whose common turns are the prompt."""

from __future__ import annotations

from dpo_cli.data.formats._base import (
    BadRow,
    Format,
    Row,
    SkipRow,
    check_turns,
    is_messages,
    messages,
    template_fields,
)
from dpo_cli.data.reasons import Reason
from dpo_cli.types import Example

COLUMNS = ("chosen", "rejected")


def matches(row: Row) -> bool:
    """Say whether both fields are conversations that hold their own prompt; a `prompt` beside them must be in them."""
    if not all(is_messages(row.get(column)) for column in COLUMNS):
        return False
    chosen, prompt = row["chosen"], row.get("prompt")
    if prompt is None:
        return chosen[0]["role"] != "assistant"
    if isinstance(prompt, str):
        return any(turn["role"] == "user" and turn.get("content") == prompt for turn in chosen)
    return chosen[: len(prompt)] == prompt


def parse(row: Row, source: str, chat: bool) -> Example:
    """Split at the first turn that differs, so a shared history is prompt and every completion keeps a turn.

    Raises:
        BadRow: a field is absent or no conversation, or `prompt` is text that the conversations do not hold.
        SkipRow: the conversations differ before the assistant speaks, or not at all.
    """
    chosen, rejected = (messages(row, column) for column in COLUMNS)
    if row.get("prompt") is not None and not matches(row):
        raise BadRow('"prompt" stands beside conversations that do not hold it; use one layout')
    if chosen == rejected:
        raise SkipRow(Reason.IDENTICAL)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if chosen[shared]["role"] != "assistant" and rejected[shared]["role"] != "assistant":
        raise SkipRow(Reason.PROMPTS_DIFFER)
    prompt = chosen[:shared]
    check_turns(prompt, chosen[shared:], "chosen")
    check_turns(prompt, rejected[shared:], "rejected")
    return Example(prompt, (chosen[shared:], rejected[shared:]), source, **template_fields(row))


FORMAT = Format(
    name="messages_implicit",
    fits="whole conversations in chosen and rejected, with or without a prompt column (ultrafeedback_binarized)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "chosen": [
            {"role": "user", "content": "Is the sea blue?"},
            {"role": "assistant", "content": "Mostly, yes."},
        ],
        "rejected": [
            {"role": "user", "content": "Is the sea blue?"},
            {"role": "assistant", "content": "No idea."},
        ],
    },
    is_text=False,
)
