"""Tests of differences: held beside brute force, and their promises by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dpo_cli.evaluate.compare.significance import holm, models_differ, recipes_differ, sign_flip_p
from dpo_cli.evaluate.intervals import accuracy_interval


def names(sizes: np.ndarray) -> list[str]:
    return np.repeat([f"prompt {i}" for i in range(len(sizes))], sizes).tolist()


def test_the_p_value_is_the_share_of_sign_patterns_as_far_from_zero() -> None:
    sums = np.array([2.0, -1.0, 1.0, 3.0, 1.0, 0.0, 1.0, -1.0])
    patterns = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=len(sums))]

    assert sign_flip_p(sums) == pytest.approx(np.mean([each >= abs(sums.sum()) for each in patterns]))
    assert sign_flip_p(np.zeros(5)) == sign_flip_p(np.array([0.0, 4.0])) == 1.0


def test_the_difference_is_over_rows_and_the_test_over_prompts() -> None:
    sizes = np.array([1, 1, 8])
    a, b = np.array([1.0, 1.0] + [1.0] * 8), np.zeros(10)
    found = models_differ(a, b, names(sizes))

    assert found.difference == 1.0
    # Three prompts, however many rows: eight sign patterns, two as far out.
    assert found.p_value == pytest.approx(2 / 8)
    assert models_differ(a, b, ["one"] * 10).ci is None


def test_holm_is_never_below_what_came_before_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def recipes(rng: np.random.Generator, level: float, spread: float = 0.2) -> np.ndarray:
    """Three runs of a recipe on 100 prompts of two rows; seeds move the whole run."""
    chance = 1 / (1 + np.exp(-(level + rng.normal(0, spread, (3, 1)) + rng.normal(0, 0.3, (3, 100)))))
    return (rng.random((3, 200)) < np.repeat(chance, 2, axis=1)).astype(float)


def test_recipes_far_apart_are_told_apart_and_one_seed_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    clusters = names(np.full(100, 2))
    good, bad = recipes(rng, 2.0), recipes(rng, 0.0)
    found = recipes_differ(good, bad, clusters)

    assert found.difference == pytest.approx(good.mean() - bad.mean())
    assert found.p_value < 0.01 and found.ci[0] > 0
    assert recipes_differ(good[:1], bad, clusters).p_value is None


def test_recipes_that_always_give_the_same_result_differ_by_prompts_alone() -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.random(400) < 0.8).astype(float), (rng.random(400) < 0.7).astype(float)
    clusters = names(np.ones(400, dtype=int))
    low, high = recipes_differ(np.stack([one] * 3), np.stack([other] * 3), clusters).ci

    expected = models_differ(one, other, clusters).ci
    assert (low, high) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_an_interval_with_shared_prompts_covers_the_truth_93_to_97_times_in_100() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        rates, sizes = rng.beta(4, 2, size=150), rng.integers(1, 6, 150)
        correct = (rng.random(sizes.sum()) < np.repeat(rates, sizes)).astype(float)
        low, high = accuracy_interval(correct, names(sizes))
        covered += low <= 2 / 3 <= high

    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.slow
def test_models_alike_are_called_different_at_most_6_times_in_100() -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(2000):
        rates, sizes = rng.beta(4, 2, size=80), rng.integers(1, 6, 80)
        chances = [np.clip(rates + rng.normal(0, 0.1, 80), 0, 1) for _ in range(2)]
        a, b = ((rng.random(sizes.sum()) < np.repeat(each, sizes)).astype(float) for each in chances)
        wrong += models_differ(a, b, names(sizes)).p_value < 0.05

    assert 0.02 <= wrong / 2000 <= 0.06


@pytest.mark.slow
def test_one_recipe_in_two_groups_of_three_seeds_is_called_two_at_most_6_times_in_100() -> None:
    rng, wrong, clusters = np.random.default_rng(2), 0, names(np.full(100, 2))
    for _ in range(2000):
        wrong += recipes_differ(recipes(rng, 0.8), recipes(rng, 0.8), clusters).p_value < 0.05

    assert wrong / 2000 <= 0.06
