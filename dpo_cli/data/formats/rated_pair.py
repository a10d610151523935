"""Two answers, each with a rating: the higher one is better, by the difference."""

from __future__ import annotations

from dataclasses import replace

from dpo_cli.data.formats._base import BadRow, Format, Row, SkipRow, number
from dpo_cli.data.formats._pair import is_pair, pair
from dpo_cli.data.reasons import Reason
from dpo_cli.types import Example

COLUMNS = ("prompt", "answer_a", "answer_b", "rating_a", "rating_b")


def matches(row: Row) -> bool:
    """Say whether two answers stand beside two ratings."""
    return "rating_a" in row and "rating_b" in row and is_pair(row, "answer_a", "answer_b")


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the answer that is rated higher as chosen, the other as rejected, and the difference as margin.

    Raises:
        BadRow: a field is absent or of another type.
        SkipRow: equal ratings.
    """
    one, other = number(row, "rating_a"), number(row, "rating_b")
    if one is None or other is None:
        raise BadRow(f'"{"rating_a" if one is None else "rating_b"}" is absent or empty')
    if one == other:
        raise SkipRow(Reason.TIE)
    chosen, rejected = ("answer_a", "answer_b") if one > other else ("answer_b", "answer_a")
    return replace(pair(row, chosen, rejected, source, chat), margin=abs(one - other))


FORMAT = Format(
    name="rated_pair",
    fits="prompt, answer_a, answer_b, rating_a, rating_b: numbers (text or lists of messages)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": "Is the sea blue?",
        "answer_a": "No idea.",
        "answer_b": "Mostly, yes.",
        "rating_a": 1,
        "rating_b": 4.5,
    },
    is_text=True,
)
