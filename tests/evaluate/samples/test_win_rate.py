"""Win rates and pairs of sampled answers, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_cli.cli.samples.pairs import pairs as make_pairs
from dpo_cli.errors import DataError
from dpo_cli.evaluate.judges._base import Question, Verdict, by_scores
from dpo_cli.evaluate.judges.longer import Longer
from dpo_cli.evaluate.samples.make_pairs import groups_of, pairs_of, preference, ratings
from dpo_cli.evaluate.samples.samples_file import write_rows
from dpo_cli.evaluate.samples.win_rate import contests, figures, rows_of
from tests.evaluate.sampled import sampled


def test_scores_are_asked_once_for_each_answer_and_a_missing_one_leaves_no_verdict() -> None:
    asked: list[tuple[object, str]] = []

    def score(answers: object) -> list[float | str]:
        asked.extend(answers)  # type: ignore[call-overload]
        return ["too long" if text == "cc" else float(len(text)) for _, text in asked]

    questions = [
        Question("p", "a", "bb"),
        Question("p", "bb", "a"),
        Question("p", "a", "cc"),
        Question("q", "a", "a"),
    ]
    found = by_scores(questions, score)

    assert asked == [("p", "a"), ("p", "bb"), ("p", "cc"), ("q", "a")]
    assert found == [
        Verdict(0.0, (1.0, 2.0)),
        Verdict(1.0, (2.0, 1.0)),
        Verdict(None, reason="too long"),
        Verdict(0.5, (1.0, 1.0)),
    ]


def test_ties_count_half_and_missing_verdicts_count_nowhere() -> None:
    rows = [
        sampled("p", "aaa", "a", "bbbb"),
        sampled("p", "aa", "aa", "b", k=1),
        sampled("q", "a", "bb"),
        sampled("q", "a", "b", temperature=0.0),
        sampled("r", None, "b", "c"),
    ]
    asked = contests(rows)
    verdicts = Longer().judge([each.question for each in asked], lambda _n: None)
    verdicts[3] = Verdict(None, reason="HTTP 500")
    told = figures(asked, verdicts)

    assert [(each["temperature"], each["against"]) for each in told] == [
        (0.0, "reference"),
        (1.0, "chosen"),
        (1.0, "reference"),
    ]
    greedy, chosen, reference = told
    assert (greedy["win_rate"], greedy["ties"], greedy["ci"]) == (0.5, 1, None)
    assert (chosen["win_rate"], chosen["n"], chosen["missing"]) == (0.0, 1, 1)
    assert chosen["reasons"] == {"HTTP 500": 1}
    assert (reference["win_rate"], reference["n"], reference["prompts"]) == (1.5 / 3, 3, 2)
    # Over prompts: p alone has 0.75, q alone 0.
    assert reference["ci"] == pytest.approx((0.0, 0.75))
    assert rows_of(asked, verdicts, "longer", "")[2] == {
        "prompt_key": "p",
        "temperature": 1.0,
        "k": 1,
        "against": "reference",
        "judge": "longer",
        "judge_digest": "",
        "win": 0.5,
        "scores": (2.0, 2.0),
        "reason": "",
    }


def test_pairs_are_the_best_against_the_worst_or_all_above_the_gap() -> None:
    rows = [sampled("p", text, k=k) for k, text in enumerate(["aa", "a", "aa ", "", "aaaa", "bbbb"])]
    (group,), left_out = groups_of([*rows, sampled("q", "alone"), sampled("r", None)])
    assert left_out == {"empty answers": 1, "repeated answers": 1, "prompts with fewer than two answers": 1}

    verdicts = Longer().judge(group.questions, lambda _n: None)
    rated = ratings(group, verdicts)
    assert [score for score, _ in rated] == [2.0, 1.0, 4.0, 4.0]
    ((best, worst),), none = pairs_of(rated, "best-worst", 0.0)
    assert (best[1]["k"], worst[1]["k"], none) == (4, 1, {})
    kept, dropped = pairs_of(rated, "all", 1.5)
    assert [(a[1]["k"], b[1]["k"]) for a, b in kept] == [(4, 0), (4, 1), (5, 0), (5, 1)]
    assert dropped == {"ties": 1, "gaps below --min-gap": 1}

    row = preference(best, worst, "longer", "")
    assert row["prompt"] == [{"role": "user", "content": "p"}]
    assert row["chosen"] == [{"role": "assistant", "content": "aaaa"}]
    assert (row["score_chosen"], row["score_rejected"], row["k_chosen"], row["k_rejected"]) == (
        4.0,
        1.0,
        4,
        1,
    )
    assert (row["model"], row["model_digest"], row["seed"], row["judge"]) == (
        "policy",
        "of policy",
        3,
        "longer",
    )


def test_without_scores_an_answer_is_rated_by_its_share_of_wins_where_all_are_known() -> None:
    (group,), _ = groups_of([sampled("p", text, k=k) for k, text in enumerate("abc")])
    verdicts = [Verdict(1.0), Verdict(0.75), Verdict(0.5)]  # a-b, a-c, b-c
    assert [score for score, _ in ratings(group, verdicts)] == [0.875, 0.25, 0.375]
    assert [row["k"] for _, row in ratings(group, [Verdict(1.0), Verdict(None), Verdict(0.5)])] == [1]


def test_samples_from_elsewhere_need_no_chosen_answer() -> None:
    row = sampled("p", "policy", "reference")
    del row["chosen"]

    assert [each.against for each in contests([row])] == ["reference"]


def test_answers_that_all_tie_make_no_pairs_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write_rows([sampled("p", text, k=k) for k, text in enumerate(("ab", "cd"))], path)
    with pytest.raises(DataError, match=r"no pair is left: 1 ties\. Fix"):
        make_pairs(path, "longer", out=tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()
