"""ShareGPT conversations: every answer is to be imitated."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, split_first_answer, template_fields
from dpo_cli.data.formats._sharegpt import is_sharegpt, sharegpt
from dpo_cli.types import Example

COLUMNS = ("conversations",)
_OTHERS = ("chosen", "rejected", "label")


def matches(row: Row) -> bool:
    """Say whether there are turns with `from` and `value`, and nothing that ranks or judges them."""
    return is_sharegpt(row.get("conversations")) and not any(column in row for column in _OTHERS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give what comes before the first answer as prompt, all that follows as completion.

    Raises:
        BadRow: a field is absent or of another type, an unknown speaker, no answer at the end.
    """
    prompt, completion = split_first_answer(sharegpt(row, "conversations"), "conversations")
    return Example(prompt, (completion,), source, **template_fields(row))


FORMAT = Format(
    name="sharegpt",
    fits="conversations with from and value (ShareGPT, Vicuna, most sets of that age)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "conversations": [
            {"from": "human", "value": "Is the sea blue?"},
            {"from": "gpt", "value": "Mostly, yes."},
        ]
    },
    is_text=False,
    kind="targets",
)
