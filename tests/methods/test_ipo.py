"""IPO's loss against float64 formulas written from the paper."""

from __future__ import annotations

import pytest
import torch

from dpo_cli.methods.ipo import IPOConfig, form, ipo_loss
from dpo_cli.types import LogProbs
from tests.methods.cases import random_pairs


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_loss_equals_the_papers_formula_in_float64(beta: float, per_token: bool) -> None:
    policy, reference = random_pairs(10, seed=4)
    out = ipo_loss(policy, reference, IPOConfig(beta=beta, length_normalize=per_token))
    ratio, n = (policy.total - reference.total).tolist(), policy.tokens.tolist()
    expected = []
    for i in range(0, 20, 2):
        n_w, n_l = (n[i], n[i + 1]) if per_token else (1, 1)
        expected.append((ratio[i] / n_w - ratio[i + 1] / n_l - 1 / (2 * beta)) ** 2)

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-11)


def test_the_gradient_vanishes_at_the_target_and_turns_round_behind_it() -> None:
    """At beta 0.1 the target is 5 nats."""
    policy = LogProbs(
        torch.tensor([-2.0, -7.0, -1.0, -7.0, -3.0, -7.0], requires_grad=True), torch.full((6,), 4)
    )
    reference = LogProbs(torch.full((6,), -7.0), policy.tokens)
    out = ipo_loss(policy, reference, IPOConfig(beta=0.1))
    (gradient,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert gradient[0::2].tolist() == pytest.approx([0.0, 2.0, -2.0])
    assert out.metrics["ipo/past_target"].tolist() == [0.0, 1.0, 0.0]
    assert out.metrics["ipo/gap"].tolist() == [5.0, 6.0, 4.0]


def test_the_log_names_the_form_and_its_target() -> None:
    assert form(IPOConfig(beta=0.1)) == "ipo on sums (the paper's form): target margin 5 nats"
    per_token = form(IPOConfig(beta=0.5, length_normalize=True))
    assert "TRL" in per_token
    assert per_token.endswith("target margin 1 nats per token")


def test_rewards_are_sums_in_both_forms() -> None:
    policy, reference = random_pairs(4)
    sums, means = (
        ipo_loss(policy, reference, IPOConfig(length_normalize=normalize)).metrics
        for normalize in (False, True)
    )

    assert torch.equal(sums["rewards/margins"], means["rewards/margins"])
    assert not torch.equal(sums["ipo/gap"], means["ipo/gap"])
