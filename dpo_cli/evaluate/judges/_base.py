"""What a judge is: something that says which of two answers to a prompt is better."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dpo_cli.methods._base import wins
from dpo_cli.types import Text

Advance = Callable[[int], None]
"""Called with how many more questions are done."""
Score = float | str
"""A score, or why there is none."""


@dataclass(frozen=True)
class Question:
    """Which of two answers is better."""

    prompt: Text
    a: str
    b: str


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a question."""

    win: float | None
    """1: a is better, 0: b, 0.5: a tie; between, where a judge says one thing and another; None: no verdict."""
    scores: tuple[float, float] | None = None
    """Of a and b, where the judge scores answers, in its own unit."""
    reason: str = ""
    """Why there is no verdict."""


class Judge(Protocol):
    """A judge; one file of this folder each."""

    name: str
    """For tables and file names."""
    digest: str
    """Of what decides its verdicts, beside the question; empty where the name says it all."""

    def judge(self, questions: Sequence[Question], advance: Advance) -> list[Verdict]:
        """Return a verdict on each question, in their order; one that cannot be had says why."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what it took and how it was asked, as plain values for JSON."""
        ...


def by_scores(
    questions: Sequence[Question], score: Callable[[Sequence[tuple[Text, str]]], Sequence[Score]]
) -> list[Verdict]:
    """Return verdicts from scores of single answers, each distinct answer to a prompt scored once; equal scores are a tie.

    Args:
        questions: what to judge.
        score: gives the score of each (prompt, answer).
    """
    asked = {
        _key(each.prompt, answer): (each.prompt, answer) for each in questions for answer in (each.a, each.b)
    }
    scores = dict(zip(asked, score(list(asked.values())), strict=True))
    return [
        _verdict(*(scores[_key(each.prompt, answer)] for answer in (each.a, each.b))) for each in questions
    ]


def _verdict(a: Score, b: Score) -> Verdict:
    if isinstance(a, str):
        return Verdict(None, reason=a)
    if isinstance(b, str):
        return Verdict(None, reason=b)
    return Verdict(float(wins(np.asarray(a - b))), (a, b))


def _key(prompt: Text, answer: str) -> str:
    return json.dumps([prompt, answer])
