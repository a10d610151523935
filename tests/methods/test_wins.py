"""One definition of right, wrong and tie, for tensors and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpo_cli.methods._base import ties, wins, with_ties
from dpo_cli.methods.plackett_luce import in_order
from dpo_cli.types import LogProbs

DIFFERENCES = [2.0, 1e-9, 0.0, -0.0, -3.0, float("inf"), float("nan")]
COUNTS = [1.0, 1.0, 0.5, 0.5, 0.0, 1.0, 0.0]


def test_a_tie_is_half_right_in_tensors_and_in_arrays() -> None:
    assert wins(np.array(DIFFERENCES)).tolist() == COUNTS
    assert wins(torch.tensor(DIFFERENCES)).tolist() == COUNTS
    assert wins(np.array([3, 0, -1])).tolist() == [1.0, 0.5, 0.0]
    assert wins(torch.tensor([1.0, -1.0])).dtype == torch.float32


def test_what_is_told_to_be_a_tie_is_one_whatever_its_sign() -> None:
    differences, is_tie = [1e-5, -1e-5, 1.0, 0.0], [True, True, False, False]

    assert wins(np.array(differences), np.array(is_tie)).tolist() == [0.5, 0.5, 1.0, 0.5]
    assert wins(torch.tensor(differences), torch.tensor(is_tie)).tolist() == [0.5, 0.5, 1.0, 0.5]


def test_both_sides_of_a_pair_share_one_point() -> None:
    differences = np.random.default_rng(0).integers(-2, 3, 200)
    assert (wins(differences) + wins(-differences)).tolist() == [1.0] * 200


def test_log_ratios_within_rounding_of_each_other_tie_in_any_reward_units() -> None:
    tokens = torch.full((8,), 5)
    reference = LogProbs(torch.tensor([-20.0, -30.0] * 4, dtype=torch.float64), tokens)
    gained = torch.tensor([4e-4, 0.0, 2e-3, 0.0, 0.0, 9e-4, 7.0, 7.0], dtype=torch.float64)
    policy = LogProbs(reference.total + gained, tokens)
    margins = 50 * (gained[0::2] - gained[1::2])  # beta 50

    assert ties(margins, policy, reference, 1e-3).tolist() == [True, False, True, True]
    assert ties(margins, policy, None, 1e-3).tolist() == [False, False, False, True]
    found = with_ties({"rewards/margins": margins, "loss": margins}, policy, reference, 1e-3)
    assert found["rewards/accuracies"].tolist() == [0.5, 1.0, 0.5, 0.5] and found["loss"] is margins


def test_equal_rewards_in_a_ranking_are_half_in_order() -> None:
    rewards = torch.tensor([[3.0, 3.0, 1.0], [2.0, 5.0, -1e30]])
    present = torch.tensor([[True, True, True], [True, True, False]])

    assert in_order(rewards, present).tolist() == pytest.approx([2.5 / 3, 0.0])
