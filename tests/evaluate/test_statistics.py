import time

import numpy as np
import pytest

from dpo_cli.evaluate.statistics import accuracy_interval, mean_interval


def _prompts(n):
    return [f"prompt {i}" for i in range(n)]


def test_the_interval_of_independent_rows_is_the_binomial_one():
    correct = np.array([1.0] * 700 + [0.0] * 300)
    low, high = accuracy_interval(correct, _prompts(1000))
    standard_error = (0.7 * 0.3 / 1000) ** 0.5
    assert low == pytest.approx(0.7 - 1.96 * standard_error, abs=0.004)
    assert high == pytest.approx(0.7 + 1.96 * standard_error, abs=0.004)


def test_rows_of_one_prompt_count_as_one_observation():
    correct = np.repeat(np.array([1.0] * 35 + [0.0] * 15), 20)
    clustered = accuracy_interval(correct, np.repeat(_prompts(50), 20).tolist())
    independent = accuracy_interval(correct, _prompts(1000))
    widths = [high - low for low, high in (clustered, independent)]
    assert widths[0] == pytest.approx(widths[1] * 20**0.5, rel=0.1)


def test_the_order_of_rows_and_names_of_prompts_do_not_matter_for_the_mean():
    rng = np.random.default_rng(3)
    values, names = rng.normal(size=60), [f"p{i % 20}" for i in range(60)]
    order = rng.permutation(60)
    shuffled = mean_interval(values[order], [names[i] for i in order])
    assert shuffled == pytest.approx(mean_interval(values, names), abs=1e-12)


@pytest.mark.parametrize(("right", "expected"), [(80, (0.954, 1.0)), (0, (0.0, 0.046))])
def test_all_right_or_all_wrong_still_has_a_width(right, expected):
    interval = accuracy_interval(np.full(80, 1.0 if right else 0.0), _prompts(80))
    assert interval == pytest.approx(expected, abs=1e-3)


def test_all_right_on_few_prompts_is_wide_however_many_rows():
    low, _ = accuracy_interval(np.ones(500), [f"p{i % 3}" for i in range(500)])
    assert low < 0.5


@pytest.mark.parametrize("prompts", [[], ["a"], ["a"] * 10])
def test_fewer_than_two_prompts_have_no_interval(prompts):
    values = np.linspace(0, 1, len(prompts))
    assert accuracy_interval(values, prompts) is None
    assert mean_interval(values, prompts) is None


def test_equal_margins_have_an_interval_without_width():
    assert mean_interval(np.full(5, 0.25), _prompts(5)) == (0.25, 0.25)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        rates = rng.beta(4, 2, size=60)  # prompts differ: mean 2/3
        correct = (rng.random((60, 3)) < rates[:, None]).astype(float).ravel()
        low, high = accuracy_interval(correct, np.repeat(_prompts(60), 3).tolist())
        covered += low <= 2 / 3 <= high
    assert covered >= 88


def test_two_thousand_rows_take_well_under_a_second_and_repeat_exactly():
    correct = (np.random.default_rng(0).random(2000) < 0.7).astype(float)
    began = time.perf_counter()
    first = accuracy_interval(correct, _prompts(2000))
    assert time.perf_counter() - began < 2  # 0.1 s on an idle core
    assert accuracy_interval(correct, _prompts(2000)) == first
