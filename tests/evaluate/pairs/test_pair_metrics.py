"""Figures of rows, held beside what they are by hand, and the file that keeps the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.pair_metrics import (
    by_length,
    calibration_error,
    drift,
    figures,
    length_matched,
    matching_weights,
    reliability,
)
from dpo_cli.evaluate.pairs.pair_rows import PairRows, read_rows, write_rows


def made(margin: np.ndarray, tokens: np.ndarray | None = None, tie: np.ndarray | None = None) -> PairRows:
    """Rows of distinct prompts with these margins; log-ratios are ten times the rewards."""
    n = len(margin)
    tokens = np.full((n, 2), 10) if tokens is None else tokens
    rewards = np.stack([margin / 2, -margin / 2], axis=1)
    text = np.array([f"{i:04}" for i in range(n)], dtype=object)
    return PairRows(
        key=text,
        set=np.full(n, "one", dtype=object),
        source=text,
        prompt=text,
        ids=np.stack([text, text], axis=1),
        prompt_tokens=np.full(n, 5),
        tokens=tokens,
        logps=10 * rewards - 20.0,
        ref_logps=np.full((n, 2), -20.0),
        rewards=rewards,
        tie=np.zeros(n, dtype=bool) if tie is None else tie,
    )


def test_ties_are_half_right_and_counted() -> None:
    found = figures(made(np.array([1.0, 1e-9, -1.0, 2.0]), tie=np.array([False, True, False, False])))

    assert (found["n"], found["ties"], found["accuracy"]) == (4, 1, 0.625)
    assert found["axis"]["log_ratio_accuracy"] == 0.625
    assert found["margin"] == pytest.approx(0.5)
    assert found["drift"] == pytest.approx(
        {"chosen": 2.5, "rejected": -2.5, "chosen_per_token": 0.25, "rejected_per_token": -0.25}, rel=1e-6
    )
    assert found["baselines"]["reference_sum"] == found["baselines"]["longer_wins"] == 0.5


def test_a_model_that_is_as_right_as_it_is_sure_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    size = rng.exponential(1.5, 100_000)
    sign = np.where(rng.random(100_000) < 1 / (1 + np.exp(-size)), 1, -1)

    assert calibration_error(reliability(made(size * sign))) < 0.01
    # Twice as sure of the same choices.
    assert calibration_error(reliability(made(2 * size * sign))) > 0.05
    always = reliability(made(np.full(10, 1.0)))
    assert calibration_error(always) == pytest.approx(1 - 1 / (1 + np.exp(-1)))
    # A coin that says so.
    assert calibration_error(reliability(made(np.zeros(4), tie=np.ones(4, dtype=bool)))) == 0.0


def test_length_buckets_split_at_a_tenth() -> None:
    tokens = np.array([[10, 12], [10, 11], [11, 10], [12, 10]])
    found = by_length(made(np.array([1.0, 1.0, -1.0, -1.0]), tokens))

    assert {name: (each.n, each.accuracy) for name, each in found.items()} == {
        "chosen shorter": (1, 1.0),
        "similar": (2, 0.5),
        "chosen longer": (1, 0.0),
    }


def test_length_matched_takes_away_what_length_explains() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 60, (2000, 2))
    tokens[:, 1] += tokens[:, 0] == tokens[:, 1]
    tokens[:1000] = -np.sort(-tokens[:1000], axis=1)  # the chosen answer is longer in most pairs
    by_rule = made((tokens[:, 0] - tokens[:, 1]).astype(float), tokens)
    knows = made(np.where(rng.random(2000) < 0.8, 1.0, -1.0), tokens)

    assert figures(by_rule)["baselines"]["longer_wins"] > 0.7
    assert length_matched(by_rule).accuracy == pytest.approx(0.5)
    matched = length_matched(knows)
    assert matched.accuracy == pytest.approx(0.8, abs=0.03) and matched.ci[0] < 0.8 < matched.ci[1]
    weights, ratio = matching_weights(tokens), np.log(tokens[:, 0] / tokens[:, 1])
    assert weights[ratio > 0].sum() == pytest.approx(weights[ratio < 0].sum())


def test_chosen_answers_that_are_all_longer_have_no_match() -> None:
    found = length_matched(made(np.ones(3), np.array([[9, 5], [8, 5], [7, 5]])))

    assert (found.n, found.accuracy) == (0, None)


def test_rows_come_back_from_their_file_and_other_files_are_refused(tmp_path: Path) -> None:
    rows = made(np.array([1.0, -2.0]))
    rows.ref_logps[:] = np.nan
    write_rows(rows, tmp_path / "pairs.parquet")
    again = read_rows(tmp_path / "pairs.parquet")

    assert again.key.tolist() == rows.key.tolist()
    np.testing.assert_array_equal(again.rewards, rows.rewards)
    np.testing.assert_array_equal(again.ids, rows.ids)
    assert not again.has_reference and again.has_logps and drift(again) is None
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StorageError, match="no readable results"):
        read_rows(tmp_path / "pairs.parquet")
