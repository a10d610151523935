"""A prompt with a list of answers: what the layouts of rankings and ratings share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_cli.data.formats._base import BadRow, Row, SkipRow, number, present
from dpo_cli.data.formats._dialogue import are_answers, example_of
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.tokenize.turns import kind_of
from dpo_cli.types import Example

COLUMN = "completions"


def is_many(row: Row) -> bool:
    """Return whether a list of answers stands beside a prompt."""
    answers = row.get(COLUMN)
    return isinstance(answers, list) and are_answers(row, answers)


def best_first(row: Row) -> list[float] | None:
    """Return ratings that tell the answer which `best` names, by its place from 0 or by its text, from all others; None where none is named.

    Raises:
        BadRow: `best` names no answer.
    """
    if row.get("best") is None:
        return None
    answers, best = present(row, COLUMN), row["best"]
    if not isinstance(answers, list):
        return None
    if best in answers:
        at = answers.index(best)
    else:
        number_of = number(row, "best")
        at = int(number_of) if number_of is not None and number_of == int(number_of) else -1
    if not 0 <= at < len(answers):
        raise BadRow(f" is {best!r}, not one of {len(answers)} answers", "best")
    return [float(i == at) for i in range(len(answers))]


def ranked(row: Row, ratings: Sequence[float | None] | None, source: str, chat: bool) -> Example:
    """Return a prompt's answers, the best rated first; those that are null or have no rating are left out.

    Args:
        row: holds the prompt, the answers and what the template reads.
        ratings: one for each answer, higher is better; None: the answers stand best first.
        source: the row's place.
        chat: text becomes messages.

    Raises:
        BadRow: an answer or the prompt is of another kind, or ratings and answers differ in number.
        SkipRow: fewer than two answers, or all rated alike.
    """
    answers: Any = present(row, COLUMN)
    if not isinstance(answers, list):
        raise BadRow(f" is {kind_of(answers)}, not a list of answers", COLUMN)
    if ratings is not None and len(ratings) != len(answers):
        raise BadRow(f" holds {len(answers)} answers, but there are {len(ratings)} ratings", COLUMN)
    rated = [
        (rating, f"{COLUMN}[{i}]", answer)
        for i, (rating, answer) in enumerate(zip(ratings or [0.0] * len(answers), answers, strict=True))
        if rating is not None and answer is not None
    ]
    rated.sort(key=lambda each: -each[0])
    if len(rated) < 2:
        raise SkipRow(Reason.ALONE)
    if ratings is not None and rated[0][0] == rated[-1][0]:
        raise SkipRow(Reason.TIE)
    named = {name: answer for _, name, answer in rated}
    scores = tuple(rating for rating, _, _ in rated) if ratings is not None else None
    return example_of(row, named, source, chat, ratings=scores)
