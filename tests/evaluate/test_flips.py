"""Margins of a noisy set lie in two mirrored heaps; of a clean one in one."""

from __future__ import annotations

import numpy as np
import pytest

from dpo_cli.evaluate.flips import find_flips


def noisy(rate: float, seed: int, n: int = 700, shape: str = "normal") -> tuple[np.ndarray, np.ndarray]:
    """Give margins of pairs that are right nine times of ten, and which of their labels were turned over."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(0, 1, n) if shape == "normal" else draw.gamma(4, 0.5, n) - 2
    turned = draw.random(n) < rate
    return np.where(turned, -1, 1) * (1.3 + noise), turned


@pytest.mark.parametrize(("shape", "least"), [("normal", 0.8), ("skewed", 0.4)])
def test_a_fifth_of_the_labels_turned_over_is_found(shape: str, least: float) -> None:
    recall, precision, rates = [], [], []
    for seed in range(10):
        margins, turned = noisy(0.2, seed, shape=shape)
        flips = find_flips(margins)
        hit = flips.suspected & turned
        recall.append(hit.sum() / turned.sum())
        precision.append(hit.sum() / flips.suspected.sum())
        rates.append(flips.rate)

    # Where the heaps are no bell curves fewer are found, not more wrongly suspected.
    assert np.mean(recall) > least and np.mean(precision) > 0.7
    assert np.mean(rates) == pytest.approx(0.2, abs=0.08)


def test_a_clean_set_has_no_suspects() -> None:
    found = [find_flips(noisy(0.0, seed)[0]) for seed in range(50)]

    assert sum(flips.rate is not None for flips in found) <= 2
    assert sum(flips.suspected.sum() for flips in found) <= 10


def test_a_run_that_learnt_nothing_suspects_nobody() -> None:
    draw = np.random.default_rng(0)

    assert not find_flips(draw.normal(0, 1, 700)).suspected.any()
    assert not find_flips(np.zeros(700)).suspected.any()
    assert find_flips(np.array([-9.0, 3, 3, 3])).rate is None, "too few to tell"


def test_units_do_not_matter() -> None:
    margins, _ = noisy(0.2, 0)

    assert np.array_equal(find_flips(margins).suspected, find_flips(margins * 0.01).suspected)


def test_the_expected_precision_bounds_the_suspects() -> None:
    flips = find_flips(noisy(0.3, 1)[0])

    assert 0.75 <= flips.probability[flips.suspected].mean() < 0.8
    assert flips.probability[flips.suspected].min() >= flips.probability[~flips.suspected].max()
