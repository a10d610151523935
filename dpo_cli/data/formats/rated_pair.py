"""Two answers, each with a rating: the better rated one is chosen, by the difference."""

from __future__ import annotations

from dpo_cli.data.formats._base import BadRow, Format, Row, SkipRow, number, present
from dpo_cli.data.formats._dialogue import are_answers, example_of
from dpo_cli.data.row_notes import Reason
from dpo_cli.types import Example

COLUMNS = ("answer_a", "answer_b", "rating_a", "rating_b")


def matches(row: Row) -> bool:
    """Return whether two answers stand beside two ratings."""
    answers = [row.get("answer_a"), row.get("answer_b")]
    return "rating_a" in row and "rating_b" in row and are_answers(row, answers)


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the answer that is rated higher as chosen, the other as rejected, and the difference as margin.

    Raises:
        BadRow: a field is absent or of another kind.
        SkipRow: equal ratings.
    """
    ratings = {column: number(row, column) for column in ("rating_a", "rating_b")}
    for column, rating in ratings.items():
        if rating is None:
            raise BadRow(" is absent or empty", column)
    one, other = (rating or 0.0 for rating in ratings.values())
    if one == other:
        raise SkipRow(Reason.TIE)
    order = ("answer_a", "answer_b") if one > other else ("answer_b", "answer_a")
    answers = {column: present(row, column) for column in order}
    return example_of(row, answers, source, chat, margin=abs(one - other))


FORMAT = Format(
    name="rated_pair",
    fits="prompt, answer_a, answer_b, rating_a and rating_b: numbers, the higher one is better unless better: lower",
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
    optional=("prompt",),
)
