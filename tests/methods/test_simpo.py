"""SimPO's loss against a float64 formula written from the paper."""

from __future__ import annotations

import math

import pytest
import torch

from dpo_cli.methods.simpo import SimPOConfig, form, simpo_loss
from dpo_cli.types import LogProbs

TOKENS = torch.tensor([5, 9, 1, 30, 7, 7])


def paper_loss(total: list[float], tokens: list[int], beta: float, gamma: float) -> float:
    """-log sigma(beta / |y_w| log pi(y_w) - beta / |y_l| log pi(y_l) - gamma), by hand."""
    u = beta / tokens[0] * total[0] - beta / tokens[1] * total[1] - gamma
    return math.log1p(math.exp(-u))


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (10.0, 0.0), (2.5, 1.4)])
def test_loss_equals_the_papers_formula_in_float64(beta: float, gamma: float) -> None:
    total = -30 * torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = simpo_loss(LogProbs(total, TOKENS), None, SimPOConfig(beta=beta, gamma=gamma))
    expected = [
        paper_loss(total[i : i + 2].tolist(), TOKENS[i : i + 2].tolist(), beta, gamma) for i in (0, 2, 4)
    ]

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_gamma_as_a_share_of_beta_is_the_same_loss() -> None:
    policy = LogProbs(torch.tensor([-4.0, -20.0, -3.0, -9.0, -1.0, -2.0]), TOKENS)
    plain = simpo_loss(policy, None, SimPOConfig(beta=2.5, gamma=1.25))
    ratio = simpo_loss(policy, None, SimPOConfig(beta=2.5, gamma_beta_ratio=0.5))

    assert torch.equal(plain.terms[0].losses, ratio.terms[0].losses)


@pytest.mark.parametrize("knobs", [{"gamma": 1.25}, {"gamma_beta_ratio": 0.5}])
def test_the_log_states_the_target_in_both_units(knobs: dict[str, float]) -> None:
    assert "gamma 1.25 = gamma_beta_ratio 0.5;" in form(SimPOConfig(beta=2.5, **knobs))


def test_rewards_are_beta_times_the_mean_log_prob() -> None:
    policy = LogProbs(torch.tensor([-4.0, -20.0]), torch.tensor([4, 10]))
    metrics = simpo_loss(policy, None, SimPOConfig(beta=2.0)).metrics

    assert (metrics["rewards/chosen"].item(), metrics["rewards/rejected"].item()) == (-2.0, -4.0)


def test_gradcheck() -> None:
    total = torch.randn(6, dtype=torch.float64, requires_grad=True)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return simpo_loss(LogProbs(values, TOKENS), None, SimPOConfig()).terms[0].losses

    assert torch.autograd.gradcheck(loss, (total,))
