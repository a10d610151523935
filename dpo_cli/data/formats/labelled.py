"""One prompt, one completion, and whether it is wanted: thumbs, as plain text."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, is_label, label, template_fields, text
from dpo_cli.types import Example

COLUMNS = ("prompt", "completion", "label")


def matches(row: Row) -> bool:
    """Say whether prompt and completion are text beside a label."""
    return (
        isinstance(row.get("prompt"), str)
        and isinstance(row.get("completion"), str)
        and is_label(row.get("label"))
    )


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the completion as text, or as an assistant's turn after a user's.

    Raises:
        BadRow: a field is absent, null or of another type.
    """
    prompt, completion, wanted = text(row, "prompt"), text(row, "completion"), label(row, "label")
    if not chat:
        return Example(prompt, (completion,), source, label=wanted)
    answer = ({"role": "assistant", "content": completion},)
    return Example(
        ({"role": "user", "content": prompt},), (answer,), source, **template_fields(row), label=wanted
    )


FORMAT = Format(
    name="labelled",
    fits="text columns prompt and completion, label true or false (thumbs up and down)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completion": "Mostly, yes.", "label": True},
    is_text=True,
    kind="labelled",
)
