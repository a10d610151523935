"""ORPO's loss against a float64 formula written from the paper."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dpo_cli.methods._base import mean_loss
from dpo_cli.methods.orpo import ORPOConfig, log_odds, orpo_loss
from dpo_cli.train.fit import fit
from dpo_cli.types import LogProbs
from tests.methods.cases import random_pairs
from tests.train.small import small_run


def odds(total: float, tokens: int) -> float:
    """p / (1 - p), p the geometric mean of the tokens' probabilities."""
    p = math.exp(total / tokens)
    return p / (1 - p)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_loss_equals_the_papers_formula_in_float64(beta: float) -> None:
    policy, _ = random_pairs(10, seed=5)
    out = orpo_loss(policy, None, ORPOConfig(beta=beta))
    total, n = policy.total.tolist(), policy.tokens.tolist()
    ratios = [odds(total[i], n[i]) / odds(total[i + 1], n[i + 1]) for i in range(0, 20, 2)]
    nll = -sum(total[0::2]) / sum(n[0::2])
    expected = nll + beta * sum(-math.log(1 / (1 + 1 / ratio)) for ratio in ratios) / 10

    assert mean_loss(out, policy).item() == pytest.approx(expected, rel=1e-11)
    assert out.metrics["log_odds_chosen"].tolist() == pytest.approx([math.log(r) for r in ratios], rel=1e-10)
    assert out.metrics["log_odds_ratio"].tolist() == pytest.approx(
        [-math.log1p(1 / ratio) for ratio in ratios], rel=1e-10
    )
    assert (out.terms[0].unit, out.terms[0].weight) == ("token", 1.0)


@pytest.mark.parametrize("mean", [-2e-6, -1e-4, -0.1, -math.log(2), -1.0, -20.0, -80.0])
def test_log_odds_are_exact_in_fp32(mean: float) -> None:
    mean = torch.tensor(mean).item()  # as fp32 holds it
    expected = mean - math.log(-math.expm1(mean))

    assert log_odds(torch.tensor(mean)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_certain_completion_has_finite_odds_and_no_gradient() -> None:
    mean = torch.zeros(1, requires_grad=True)
    value = log_odds(mean)
    (gradient,) = torch.autograd.grad(value, mean)

    assert value.item() == pytest.approx(-math.log(1e-6), rel=1e-4)
    assert gradient.item() == 0


def test_rewards_are_beta_times_the_mean_log_prob() -> None:
    policy = LogProbs(torch.tensor([-4.0, -20.0]), torch.tensor([4, 10]))
    metrics = orpo_loss(policy, None, ORPOConfig(beta=0.5)).metrics

    assert (metrics["rewards/chosen"].item(), metrics["rewards/rejected"].item()) == (-0.5, -1.0)
    assert metrics["nll"].item() == 1.0


def test_the_nll_over_all_tokens_pools_prompts_and_completions() -> None:
    policy, _ = random_pairs(3, seed=2)
    prompt, prompt_tokens = torch.tensor([-7.0, -1.5, 0.0], dtype=torch.float64), torch.tensor([4, 1, 0])
    whole = dataclasses.replace(policy, prompt=prompt, prompt_tokens=prompt_tokens)
    alone = mean_loss(orpo_loss(policy, None, ORPOConfig()), policy).item()
    pooled = mean_loss(orpo_loss(whole, None, ORPOConfig(nll_on="all")), whole).item()
    chosen, n = policy.total[0::2].sum().item(), int(policy.tokens[0::2].sum())

    assert pooled - alone == pytest.approx(-(chosen - 8.5) / (n + 5) + chosen / n, rel=1e-9)


def test_a_step_with_the_nll_over_all_tokens_is_invariant_to_micro_batching(tmp_path: Path) -> None:
    losses = []
    for budget in (1, 10_000):
        (tmp_path / str(budget)).mkdir()
        knobs = ("method.name=orpo", "method.nll_on=all", "train.max_steps=2")
        run, recorder = small_run(tmp_path / str(budget), *knobs, token_budget=budget)
        fit(run)
        losses.append(recorder.losses)

    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
