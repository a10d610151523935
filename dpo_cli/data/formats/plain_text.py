"""Plain text without a prompt, for SFT: every token is to be imitated."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, text
from dpo_cli.types import Example

COLUMNS = ("text",)
_OTHERS = ("prompt", "completion", "chosen", "rejected", "messages", "conversations", "label")


def matches(row: Row) -> bool:
    """Return whether there is a text and nothing that asks, answers or judges."""
    return isinstance(row.get("text"), str) and not any(column in row for column in _OTHERS)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the text as it is: there is no turn that a chat template could mark.

    Raises:
        BadRow: absent, null or not text.
    """
    return Example("", (text(row, "text"),), source)


FORMAT = Format(
    name="plain_text",
    fits="a column text (documents; never through the chat template)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"text": "The sea is mostly blue."},
    is_text=True,
    kind="targets",
    sets=("roneneldan/TinyStories", "HuggingFaceFW/fineweb"),
)
