"""Turned labels contradict a model where it is sure, hard pairs where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from dpo_cli.evaluate.pairs.label_noise import find_flips, turned_share


def noisy(rate: float, seed: int, n: int = 700, shape: str = "normal") -> tuple[np.ndarray, np.ndarray]:
    """Give margins of pairs that a model has right nine times of ten, and which of their labels were turned over."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(0, 1, n) if shape == "normal" else draw.gamma(4, 0.5, n) - 2
    turned = draw.random(n) < rate
    return np.where(turned, -1, 1) * (1.3 + noise), turned


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_a_fifth_of_the_labels_turned_over_is_found(shape: str) -> None:
    recall, precision, rates = [], [], []
    for seed in range(10):
        margins, turned = noisy(0.2, seed, shape=shape)
        flips = find_flips(margins, margins)
        hit = flips.suspected & turned
        recall.append(hit.sum() / turned.sum())
        precision.append(hit.sum() / flips.suspected.sum())
        rates.append(flips.rate)

    assert np.mean(recall) > 0.75 and np.mean(precision) > 0.75
    assert np.mean(rates) == pytest.approx(0.2, abs=0.02)


def test_a_clean_set_has_no_suspects() -> None:
    rates = [turned_share(noisy(0.0, seed)[0]) for seed in range(50)]

    assert sum(rate is not None for rate in rates) <= 2


def test_a_run_that_learnt_nothing_suspects_nobody() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 700)

    for margins in (noise, np.zeros(700), np.array([-9.0, 3, 3, 3])):
        found = find_flips(margins, margins)
        assert found.rate is None and not found.suspected.any()


def test_units_do_not_matter() -> None:
    margins, _ = noisy(0.2, 0)

    assert np.array_equal(
        find_flips(margins, margins).suspected, find_flips(margins / 100, margins * 7).suspected
    )


def test_the_share_comes_from_the_first_visits_and_the_suspects_from_where_pairs_stand() -> None:
    first, turned = noisy(0.2, 0)
    standing = first + 0.4  # every pair was pulled up by its own gradient
    first[::3] = np.nan  # a third was not met
    flips = find_flips(first, standing)

    assert flips.rate == pytest.approx(0.2, abs=0.05)
    assert standing[flips.suspected].max() < 0
    assert (flips.suspected & turned).sum() / turned.sum() > 0.7
    nobody = np.full(700, np.nan)
    assert find_flips(nobody, standing).rate == turned_share(standing)
