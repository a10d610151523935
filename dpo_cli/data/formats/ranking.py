"""A prompt and its completions from best to worst."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row
from dpo_cli.data.formats._many import completions, is_many, ranked
from dpo_cli.types import Example

COLUMNS = ("prompt", "completions")


def matches(row: Row) -> bool:
    """Say whether there are completions that nothing rates."""
    return is_many(row) and "ratings" not in row


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the completions in their order; a source's `pairs` says which of them are compared.

    Raises:
        BadRow: a field is absent or of another type.
        SkipRow: fewer than two completions.
    """
    return ranked(row, "prompt", completions(row, "completions"), (), source, chat)


FORMAT = Format(
    name="ranking",
    fits="prompt and completions, a list from best to worst (text, or lists of messages)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completions": ["Mostly, yes.", "Yes.", "No idea."]},
    is_text=True,
)
