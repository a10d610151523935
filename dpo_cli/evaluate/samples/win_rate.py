"""How often a policy's answer is preferred to its reference's, and to the data's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dpo_cli.evaluate.intervals import accuracy_interval
from dpo_cli.evaluate.judges._base import Question, Verdict
from dpo_cli.evaluate.samples.samples_file import Row

Against = Literal["reference", "chosen"]
"""Whose answer stands beside the policy's: its reference's, or the one that the data prefer."""


@dataclass(frozen=True)
class Contest:
    """A question about one draw: a is the policy's answer."""

    row: Row
    against: Against
    question: Question


def contests(rows: Sequence[Row]) -> list[Contest]:
    """Return all that can be asked of samples: the policy's answer to each prompt against its reference's and the data's."""
    found = []
    for row in rows:
        beside: dict[Against, str | None] = {
            "reference": row["reference"] and row["reference"]["text"],
            "chosen": row.get("chosen"),
        }
        for against, text in beside.items():
            if row["policy"] is not None and text is not None:
                found.append(Contest(row, against, Question(row["prompt"], row["policy"]["text"], text)))
    return found


def figures(asked: Sequence[Contest], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the win rates by opponent and temperature, as plain values for JSON.

    A tie counts half, and so does a judge's mean over two orders; the interval is 95%, over prompts. What has no verdict counts nowhere,
    and is reported with its reasons.

    Args:
        asked: the contests.
        verdicts: one each.
    """
    both = list(zip(asked, verdicts, strict=True))
    parts = sorted({(contest.row["temperature"], contest.against) for contest in asked})
    return [
        {
            "temperature": temperature,
            "against": against,
            **_share(
                [(c, v) for c, v in both if (c.row["temperature"], c.against) == (temperature, against)]
            ),
        }
        for temperature, against in parts
    ]


def _share(both: Sequence[tuple[Contest, Verdict]]) -> dict[str, Any]:
    wins = np.array([verdict.win for _, verdict in both if verdict.win is not None], dtype=np.float64)
    prompts = [contest.row["prompt_key"] for contest, verdict in both if verdict.win is not None]
    return {
        "n": len(wins),
        "prompts": len(set(prompts)),
        "missing": len(both) - len(wins),
        "reasons": dict(Counter(verdict.reason for _, verdict in both if verdict.win is None)),
        "win_rate": float(wins.mean()) if len(wins) else None,
        "ci": accuracy_interval(wins, prompts) if len(wins) else None,
        "ties": int((wins == 0.5).sum()),
    }


def rows_of(
    asked: Sequence[Contest], verdicts: Sequence[Verdict], judge: str, digest: str
) -> list[dict[str, Any]]:
    """Return a line for each contest: which draw, against whom, and what the judge said."""
    return [
        {
            **{name: contest.row[name] for name in ("prompt_key", "temperature", "k")},
            "against": contest.against,
            "judge": judge,
            "judge_digest": digest,
            "win": verdict.win,
            "scores": verdict.scores,
            "reason": verdict.reason,
        }
        for contest, verdict in zip(asked, verdicts, strict=True)
    ]
