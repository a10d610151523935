"""ShareGPT conversations whose last answer is wanted or not."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, is_label, label, split_last_answer, template_fields
from dpo_cli.data.formats._sharegpt import is_sharegpt, sharegpt
from dpo_cli.types import Example

COLUMNS = ("conversations", "label")


def matches(row: Row) -> bool:
    """Say whether a label stands beside turns with `from` and `value`."""
    return is_sharegpt(row.get("conversations")) and is_label(row.get("label"))


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give what follows the last user turn as the labelled completion.

    Raises:
        BadRow: a field is absent or of another type, an unknown speaker, no answer at the end.
    """
    prompt, completion = split_last_answer(sharegpt(row, "conversations"), "conversations")
    return Example(prompt, (completion,), source, **template_fields(row), label=label(row, "label"))


FORMAT = Format(
    name="sharegpt_labelled",
    fits="conversations with from and value, and a label (thumbs; LLaMA-Factory calls it kto_tag)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "conversations": [
            {"from": "human", "value": "Is the sea blue?"},
            {"from": "gpt", "value": "Mostly, yes."},
        ],
        "label": True,
    },
    is_text=False,
    kind="labelled",
)
