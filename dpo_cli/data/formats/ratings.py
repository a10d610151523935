"""A prompt, its answers, and a rating for each."""

from __future__ import annotations

from dpo_cli.data.formats._base import BadRow, Format, Row, number, present
from dpo_cli.data.formats._many import is_many, ranked
from dpo_cli.data.tokenize.turns import kind_of
from dpo_cli.types import Example

COLUMNS = ("completions", "ratings")


def matches(row: Row) -> bool:
    """Return whether a list of ratings stands beside the answers."""
    return is_many(row) and isinstance(row.get("ratings"), list)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the answers from the best rated to the worst; equal ratings make no pair, and an answer without one is left out.

    Raises:
        BadRow: a field is absent or of another kind, or the lists differ in length.
        SkipRow: fewer than two rated answers.
    """
    ratings = present(row, "ratings")
    if not isinstance(ratings, list):
        raise BadRow(f" is {kind_of(ratings)}, not a list of numbers", "ratings")
    numbers = [number({"ratings": float(r) if isinstance(r, bool) else r}, "ratings") for r in ratings]
    return ranked(row, numbers, source, chat)


FORMAT = Format(
    name="ratings",
    fits="prompt, completions and ratings, two lists of one length; the higher rating is better unless better: lower",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": "Is the sea blue?",
        "completions": ["No idea.", "Mostly, yes.", "Yes."],
        "ratings": [1, 5, 3],
    },
    is_text=True,
    optional=("prompt",),
)
