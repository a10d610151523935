"""The trivial judge: the longer answer is better. What another judge sees beyond length shows beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_cli.evaluate.judges._base import Advance, Question, Verdict, by_scores


class Longer:
    """Counts characters."""

    name = "longer"
    digest = ""

    def judge(self, questions: Sequence[Question], advance: Advance) -> list[Verdict]:
        """Return the verdicts; there is always one."""
        advance(len(questions))
        return by_scores(questions, lambda asked: [float(len(answer)) for _, answer in asked])

    def facts(self) -> dict[str, Any]:
        """Return nothing: it costs nothing."""
        return {}
