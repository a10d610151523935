"""ShareGPT conversations with two last answers."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, check_turns, template_fields
from dpo_cli.data.formats._sharegpt import is_sharegpt, sharegpt
from dpo_cli.types import Example

COLUMNS = ("conversations", "chosen", "rejected")


def matches(row: Row) -> bool:
    """Say whether all three fields are turns with `from` and `value`."""
    return all(is_sharegpt(row.get(column)) for column in COLUMNS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the conversation as prompt, and the two answers.

    Raises:
        BadRow: a field is absent or of another type, an unknown speaker, a conversation that ends with the assistant.
    """
    prompt, chosen, rejected = (
        sharegpt(row, "conversations"),
        sharegpt(row, "chosen"),
        sharegpt(row, "rejected"),
    )
    check_turns(prompt, chosen, "chosen")
    check_turns(prompt, rejected, "rejected")
    return Example(prompt, (chosen, rejected), source, **template_fields(row))


FORMAT = Format(
    name="sharegpt_pairs",
    fits="conversations with from and value, chosen, rejected (LLaMA-Factory's DPO sets)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "conversations": [{"from": "human", "value": "Is the sea blue?"}],
        "chosen": {"from": "gpt", "value": "Mostly, yes."},
        "rejected": {"from": "gpt", "value": "No idea."},
    },
    is_text=False,
)
