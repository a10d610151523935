"""Held-out pairs: what counts as right, as wrong and as a tie, the same in every figure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dpo_cli import methods
from dpo_cli.evaluate.pairs.held_out import Evaluation, evaluate_pairs
from dpo_cli.types import LogProbs, TokenGroup

N = 40
IDS, MASK = np.arange(4, dtype=np.int32), np.ones(4, dtype=bool)
GROUPS = [TokenGroup(IDS, (IDS, IDS), (MASK, MASK)) for _ in range(N)]


def evaluated(ahead: torch.Tensor, name: str, tie_nats: float) -> Evaluation:
    """Give the figures of pairs whose chosen answers gained `ahead` nats, (N,), on the reference."""
    tokens = torch.full((2 * N,), 4)
    reference = LogProbs(torch.linspace(-30, -10, 2 * N, dtype=torch.float64), tokens)
    gained = torch.stack([ahead, torch.zeros(N, dtype=torch.float64)], 1).flatten()
    policy = dataclasses.replace(reference, total=reference.total + gained)
    prompts = [f"prompt {i:02}" for i in range(N)]
    method = methods.get(name)
    return evaluate_pairs(GROUPS, prompts, policy, reference, method, method.config(), tie_nats)


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "plackett_luce"])
def test_a_policy_that_is_its_reference_but_for_rounding_has_ties_not_an_accuracy(name: str) -> None:
    noise = 1e-5 * torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = evaluated(noise, name, 1e-3)
    assert (found.accuracy, found.ties) == (0.5, N)
    assert found.ci is not None and found.ci[0] < 0.5 < found.ci[1]
    assert evaluated(noise, name, 0.0).accuracy == (noise > 0).double().mean()


def test_what_is_clear_stays_clear_beside_ties() -> None:
    ahead = torch.tensor([1.0, -1.0, 1e-4, 2e-3] * (N // 4), dtype=torch.float64)
    found = evaluated(ahead, "dpo", 1e-3)
    assert (found.accuracy, found.ties) == (0.625, N // 4)


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "plackett_luce"])
def test_one_accuracy_is_logged_kept_and_has_the_interval(name: str) -> None:
    ahead = torch.tensor([1.0, -1.0, 1e-4, -1e-4, 0.0] * (N // 5), dtype=torch.float64)
    found = evaluated(ahead, name, 1e-3)
    logged, kept = found.as_metrics(), found.as_dict()

    assert found.accuracy == logged["eval/rewards/accuracies"] == kept["accuracy"] == 0.5
    assert logged["eval/axis/log_ratio_accuracy"] == 0.5
    low, high = (logged[f"eval/rewards/accuracies_ci_{end}"] for end in ("lo", "hi"))
    assert low <= 0.5 <= high and [low, high] == kept["ci"]
    assert kept["ties"] == 3 * N // 5


def test_equal_scores_of_a_reward_model_are_ties() -> None:
    method = methods.get("reward")
    scores = LogProbs(torch.tensor([2.0, 2.0, 1.0, 0.5] * (N // 2)), torch.full((2 * N,), 4))
    prompts = [f"prompt {i:02}" for i in range(N)]
    found = evaluate_pairs(GROUPS, prompts, scores, None, method, method.config())

    assert (found.accuracy, found.ties) == (0.75, N // 2)
    assert found.as_metrics()["eval/rewards/accuracies"] == 0.75
