"""From sampled answers and a judge to preference pairs that `dpo train` reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from dpo_cli.evaluate.judges._base import Question, Verdict
from dpo_cli.evaluate.samples.samples_file import Row

Take = Literal["best-worst", "all"]
"""Which pairs of a prompt's answers."""
Rated = tuple[float, Row]


@dataclass(frozen=True)
class Group:
    """A prompt's distinct answers of the policy, over all temperatures, and every two of them as a question."""

    rows: list[Row]

    @property
    def questions(self) -> list[Question]:
        """Each two answers, in the order of `combinations`."""
        return [
            Question(a["prompt"], a["policy"]["text"], b["policy"]["text"])
            for a, b in combinations(self.rows, 2)
        ]


def groups_of(rows: Sequence[Row]) -> tuple[list[Group], Counter[str]]:
    """Return the prompts with two answers or more that differ, and a count of what was left out by its reason."""
    left_out: Counter[str] = Counter()
    by_prompt: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["policy"] is None:
            continue
        text = row["policy"]["text"].strip()
        if not text:
            left_out["empty answers"] += 1
        elif text in by_prompt[row["prompt_key"]]:
            left_out["repeated answers"] += 1
        else:
            by_prompt[row["prompt_key"]][text] = row
    left_out["prompts with fewer than two answers"] = sum(len(found) < 2 for found in by_prompt.values())
    return [Group(list(found.values())) for found in by_prompt.values() if len(found) > 1], +left_out


def ratings(group: Group, verdicts: Sequence[Verdict]) -> list[Rated]:
    """Return the rating of each answer that has one: the judge's score, or else its share of wins over the prompt's other answers.

    A share of wins with a verdict missing would compare answers by other rivals: such an answer has none.

    Args:
        group: K answers.
        verdicts: on `group.questions`.
    """
    scores: dict[int, float] = {}
    wins: dict[int, list[float | None]] = defaultdict(list)
    for (a, b), verdict in zip(combinations(range(len(group.rows)), 2), verdicts, strict=True):
        if verdict.scores is not None:
            scores[a], scores[b] = verdict.scores
        wins[a].append(verdict.win)
        wins[b].append(None if verdict.win is None else 1 - verdict.win)
    if not scores:
        whole = {k: [win for win in own if win is not None] for k, own in wins.items()}
        scores = {k: sum(own) / len(own) for k, own in whole.items() if len(own) == len(wins[k])}
    return [(scores[k], group.rows[k]) for k in sorted(scores)]


def pairs_of(
    rated: Sequence[Rated], take: Take, min_gap: float
) -> tuple[list[tuple[Rated, Rated]], Counter[str]]:
    """Return (better, worse) of a prompt's rated answers, and a count of the pairs left out by their reason.

    Args:
        rated: two or more.
        take: the best against the worst, or each two.
        min_gap: least difference of ratings, in the judge's unit.
    """
    order = sorted(rated, key=lambda each: -each[0])
    both = list(combinations(order, 2)) if take == "all" else [(order[0], order[-1])]
    kept, left_out = [], Counter[str]()
    for better, worse in both:
        gap = better[0] - worse[0]
        if gap == 0 or gap < min_gap:
            left_out["ties" if gap == 0 else "gaps below --min-gap"] += 1
        else:
            kept.append((better, worse))
    return kept, left_out


def preference(better: Rated, worse: Rated, judge: str, digest: str) -> dict[str, Any]:
    """Return a pair as a row to train on, with where it comes from."""
    row = better[1]
    sides = {"chosen": better, "rejected": worse}
    is_text = isinstance(row["prompt"], str)
    row_out: dict[str, Any] = {
        name: row[name] for name in ("prompt", "tools", "chat_template_kwargs") if name in row
    }
    for side, (_, own) in sides.items():
        text = own["policy"]["text"]
        row_out[side] = text if is_text else [{"role": "assistant", "content": text}]
    for side, (score, _) in sides.items():
        row_out[f"score_{side}"] = score
    for name in ("temperature", "k"):
        for side, (_, own) in sides.items():
            row_out[f"{name}_{side}"] = own[name]
    about = {"model": row["policy"]["model"], "model_digest": row["policy"]["digest"], "seed": row["seed"]}
    return {**row_out, **about, "judge": judge, "judge_digest": digest}
