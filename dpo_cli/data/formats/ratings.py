"""A prompt, its completions, and a rating for each."""

from __future__ import annotations

from dpo_cli.data.formats._base import BadRow, Format, Row, number
from dpo_cli.data.formats._many import completions, is_many, ranked
from dpo_cli.types import Example

COLUMNS = ("prompt", "completions", "ratings")


def matches(row: Row) -> bool:
    """Say whether a list of ratings stands beside the completions."""
    return is_many(row) and isinstance(row.get("ratings"), list)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the completions from the best rated to the worst; equal ratings make no pair.

    Raises:
        BadRow: a field is absent or of another type, or the lists differ in length.
        SkipRow: fewer than two rated completions.
    """
    ratings = row.get("ratings")
    if not isinstance(ratings, list):
        raise BadRow('"ratings" is not a list of numbers')
    numbers = [number({"ratings": rating}, "ratings") for rating in ratings]
    return ranked(row, "prompt", completions(row, "completions"), numbers, source, chat)


FORMAT = Format(
    name="ratings",
    fits="prompt, completions and ratings, two lists of one length (text, or lists of messages)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": "Is the sea blue?",
        "completions": ["No idea.", "Mostly, yes.", "Yes."],
        "ratings": [1, 5, 3],
    },
    is_text=True,
)
