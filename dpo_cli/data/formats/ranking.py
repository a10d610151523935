"""A prompt and its answers from best to worst."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row
from dpo_cli.data.formats._many import best_first, is_many, ranked
from dpo_cli.types import Example

COLUMNS = ("completions",)


def matches(row: Row) -> bool:
    """Return whether there are answers that nothing rates."""
    return is_many(row) and "ratings" not in row


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the answers in their order, or the one that `best` names before all others; a source's `pairs` says which of them are compared.

    Raises:
        BadRow: a field is absent or of another kind.
        SkipRow: fewer than two answers.
    """
    return ranked(row, best_first(row), source, chat)


FORMAT = Format(
    name="ranking",
    fits="prompt and completions, a list from best to worst; or in any order beside best, the place (from 0) or text of the best",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completions": ["Mostly, yes.", "Yes.", "No idea."]},
    is_text=True,
    optional=("prompt", "best"),
)
