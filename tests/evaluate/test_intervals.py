import time

import numpy as np
import pytest
from scipy.stats import binomtest

from dpo_cli.evaluate.intervals import accuracy_interval, auc_interval, mean_interval
from dpo_cli.metrics.rank import auc


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


@pytest.mark.parametrize("prompts", [2, 3, 7, 80])
def test_where_every_prompt_has_a_tie_the_interval_is_a_coins(prompts):
    low, high = accuracy_interval(np.full(prompts, 0.5), _prompts(prompts))
    whole = binomtest(prompts, 2 * prompts).proportion_ci(0.95, method="wilson")

    assert low + high == pytest.approx(1)
    assert low < whole.low and whole.high < high < 1, "wider than that of twice as many pairs"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.3, 0.5, 0.875, 1.0])
@pytest.mark.parametrize("prompts", [2, 3, 10, 1000])
def test_an_accuracy_lies_in_its_own_interval(share, prompts):
    low, high = accuracy_interval(np.full(prompts, share), _prompts(prompts))
    assert 0 <= low <= share <= high <= 1 and low < high


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


def test_two_thousand_rows_are_resampled_at_numpys_speed_and_repeat_exactly():
    rng = np.random.default_rng(0)
    correct = (rng.random(2000) < 0.7).astype(float)
    first = accuracy_interval(correct, _prompts(2000))
    began = time.process_time()
    correct[rng.integers(0, 2000, (2000, 2000))].mean(1)
    plain = time.process_time() - began
    assert accuracy_interval(correct, _prompts(2000)) == first
    assert time.process_time() - began - plain < 20 * plain  # 3 to 5 times it


def labelled(
    rng: np.random.Generator, prompts: int, apart: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values, labels and prompts of three answers a prompt, which share how hard it is; the wanted stand `apart` higher."""
    hard = np.repeat(rng.normal(0, 0.7, prompts), 3)
    wanted = rng.random(3 * prompts) < 0.5
    wanted[:2] = True, False
    values = hard + apart * wanted + rng.normal(0, 1, 3 * prompts)
    return values, wanted, [f"{i // 3}" for i in range(3 * prompts)]


def test_the_interval_of_an_auc_is_that_of_a_bootstrap_by_hand() -> None:
    values, wanted, prompts = labelled(np.random.default_rng(1), 30, 1.0)
    interval = auc_interval(values, wanted, prompts)
    rng, found = np.random.default_rng(7), []
    for _ in range(1000):
        rows = np.concatenate([np.arange(3 * i, 3 * i + 3) for i in rng.integers(30, size=30)])
        up, down = values[rows][wanted[rows]], values[rows][~wanted[rows]]
        found.append(np.mean([[float(u > d) + (u == d) / 2 for d in down] for u in up]))
    assert interval is not None
    assert interval == pytest.approx(np.quantile(found, [0.025, 0.975]).tolist(), abs=0.02)
    assert interval[0] < auc(values[wanted], values[~wanted]) < interval[1]


def test_an_auc_of_one_prompt_or_without_a_mistake() -> None:
    values, wanted = np.arange(8.0), np.arange(8) > 3
    assert auc_interval(values, wanted, ["p"] * 8) is None
    low, high = auc_interval(values, wanted, [str(i) for i in range(8)]) or (0, 0)
    assert 0.3 < low < 0.6 and high == 1.0, "Wilson's of 4 out of 4"


@pytest.mark.slow
def test_the_interval_of_an_auc_covers_it() -> None:
    """400 draws of 60 prompts: 93 to 97%, and as much again for the draws."""
    rng = np.random.default_rng(0)
    many = labelled(rng, 20_000, 0.8)
    truth = auc(many[0][many[1]], many[0][~many[1]])
    intervals = [auc_interval(*labelled(rng, 60, 0.8)) for _ in range(400)]
    covered = np.mean([low <= truth <= high for low, high in filter(None, intervals)])
    assert 0.91 <= covered <= 0.98
