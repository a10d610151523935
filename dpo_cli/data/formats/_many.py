"""A prompt with a list of completions: what the layouts of rankings and ratings share."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_cli.data.formats._base import (
    BadRow,
    Row,
    SkipRow,
    check_turns,
    is_messages,
    messages,
    template_fields,
    text,
)
from dpo_cli.data.reasons import Reason
from dpo_cli.types import Example


def is_many(row: Row) -> bool:
    """Say whether a list of texts, or of lists of messages, stands beside a prompt of that kind."""
    prompt, completions = row.get("prompt"), row.get("completions")
    if not isinstance(completions, list) or not completions:
        return False
    if isinstance(prompt, str):
        return all(isinstance(completion, str) for completion in completions)
    return is_messages(prompt) and all(is_messages(completion) for completion in completions)


def completions(row: Row, column: str) -> Sequence[object]:
    """Give a field that lists completions.

    Raises:
        BadRow: no list.
    """
    value = row.get(column)
    if not isinstance(value, list):
        raise BadRow(f'"{column}" is not a list of completions')
    return value


def ranked(
    row: Row, prompt: str, answers: Sequence[object], ratings: Sequence[float | None], source: str, chat: bool
) -> Example:
    """Give a prompt's answers, the best rated first; those without a rating are left out.

    Args:
        row: holds the prompt, and what the template reads.
        prompt: the prompt's column.
        answers: text, or lists of messages like the prompt.
        ratings: one for each answer, or none at all: then the answers stand best first.
        source: the row's place.
        chat: text becomes messages.

    Raises:
        BadRow: an answer or the prompt is of another type, or ratings and answers differ in number.
        SkipRow: fewer than two answers.
    """
    if ratings and len(ratings) != len(answers):
        raise BadRow(f"{len(answers)} completions, but {len(ratings)} ratings")
    rated = [(rating, answer) for rating, answer in zip(ratings, answers, strict=False) if rating is not None]
    rated.sort(key=lambda pair: -pair[0])
    if len(rated if ratings else answers) < 2:
        raise SkipRow(Reason.ALONE)
    scores = tuple(rating for rating, _ in rated) if ratings else None
    ordered = [answer for _, answer in rated] if ratings else answers
    if isinstance(row.get(prompt), str):
        question, texts = text(row, prompt), [text({"completions": a}, "completions") for a in ordered]
        if not chat:
            return Example(question, tuple(texts), source, ratings=scores)
        turns = tuple(({"role": "assistant", "content": answer},) for answer in texts)
        asked = ({"role": "user", "content": question},)
        return Example(asked, turns, source, **template_fields(row), ratings=scores)
    history = messages(row, prompt)
    answered = tuple(messages({"completions": answer}, "completions") for answer in ordered)
    for completion in answered:
        check_turns(history, completion, "completions")
    return Example(history, answered, source, **template_fields(row), ratings=scores)
