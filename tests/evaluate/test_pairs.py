"""Held-out pairs: what counts as right, as wrong and as a tie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dpo_cli import methods
from dpo_cli.evaluate.pairs import Evaluation, evaluate_pairs
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
    assert (found.accuracy, found.ties) == (0.0, N)
    assert evaluated(noise, name, 0.0).accuracy == (noise > 0).double().mean()


def test_what_is_clear_stays_clear_beside_ties() -> None:
    ahead = torch.tensor([1.0, -1.0, 1e-4, 2e-3] * (N // 4), dtype=torch.float64)
    found = evaluated(ahead, "dpo", 1e-3)
    assert (found.accuracy, found.ties) == (0.5, N // 4)
