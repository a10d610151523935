"""Points of reward against distance: by hand, and kept apart by judge, weights and temperature."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_cli.evaluate.judges._base import Verdict
from dpo_cli.evaluate.samples.reward_vs_kl import FRONTIER, add_points, points_of, read_frontier
from dpo_cli.evaluate.samples.win_rate import Contest, contests
from tests.evaluate.sampled import sampled


def asked(temperature: float = 1.0) -> list[Contest]:
    rows = [sampled(f"q{i}", "yes", "no", "the data's", temperature=temperature) for i in range(4)]
    for i, row in enumerate(rows):
        row["policy"] |= {"logp": -2.0, "ref_logp": -3.0 - i}
    return contests(rows)


def verdicts(found: list[Contest], *wins: float | None) -> list[Verdict]:
    """Give the verdicts against the reference in order; the data's answer wins always, which is no point."""
    given = iter(wins)
    return [
        Verdict(0.0) if contest.against == "chosen" else Verdict(win, None if win is None else (win + 2, 0.0))
        for contest in found
        for win in [next(given) if contest.against == "reference" else None]
    ]


def test_a_judges_points_are_its_win_rate_and_its_score_over_the_mean_log_ratio() -> None:
    found = asked()

    rate, score = points_of(found, verdicts(found, 1.0, 0.0, None, 0.5), "m")

    assert rate.what == "win rate against the reference, judge m"
    assert rate.reward == pytest.approx(0.5)
    assert score.what == "mean score of m"
    assert score.reward == pytest.approx(2.5)
    assert rate.kl == score.kl == pytest.approx((1 + 2 + 4) / 3)  # the third has no verdict
    assert rate.kl_ci is not None
    assert rate.kl_ci[0] < rate.kl < rate.kl_ci[1]


def test_samples_without_a_reference_behind_them_are_no_points() -> None:
    rows = [sampled("q", "yes", None, "the data's")]

    assert points_of(contests(rows), [Verdict(1.0)], "m") == []


def test_a_judge_that_judges_again_replaces_its_points_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / FRONTIER
    cold, hot = asked(0.7), asked(1.0)
    before = points_of([*cold, *hot], verdicts([*cold, *hot], *[1.0] * 8), "m")
    add_points(before, path)
    add_points(points_of(hot, verdicts(hot, *[0.0] * 4), "m"), path)

    kept = {(point.what, point.temperature): point.reward for point in read_frontier(path)}

    assert kept[("win rate against the reference, judge m", 0.7)] == 1
    assert kept[("win rate against the reference, judge m", 1.0)] == 0
    assert len(kept) == len(before) == 4
