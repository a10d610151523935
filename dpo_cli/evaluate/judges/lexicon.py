"""A ground-truth reward for sentiment: VADER's compound score of an answer, -1 to 1 (Hutto and Gilbert 2014)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from dpo_cli.errors import ModelError
from dpo_cli.evaluate.judges._base import Advance, Question, Verdict, by_scores
from dpo_cli.packages import is_installed

_PACKAGE = "vaderSentiment"


class Lexicon:
    """Reads answers, not prompts."""

    name = "lexicon"
    digest = "vader-compound"

    def __init__(self) -> None:
        """Load the lexicon.

        Raises:
            ModelError: the package is not installed.
        """
        if not is_installed(_PACKAGE):
            raise ModelError.of(
                "--judge", f"lexicon needs the package {_PACKAGE}", "pip install 'dpo-cli[judge]'"
            )
        module: Any = importlib.import_module(f"{_PACKAGE}.{_PACKAGE}")
        self._analyzer = module.SentimentIntensityAnalyzer()

    def judge(self, questions: Sequence[Question], advance: Advance) -> list[Verdict]:
        """Return the verdicts; there is always one."""
        advance(len(questions))
        return by_scores(questions, lambda asked: [self._score(answer) for _, answer in asked])

    def _score(self, answer: str) -> float:
        return float(self._analyzer.polarity_scores(answer)["compound"])

    def facts(self) -> dict[str, Any]:
        """Return what the score is."""
        return {"score": "VADER compound, -1 to 1"}
