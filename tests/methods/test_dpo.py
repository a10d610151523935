"""DPO's loss against float64 formulas written from the paper."""

from __future__ import annotations

import math

import pytest
import torch

from dpo_cli.methods import get
from dpo_cli.methods.dpo import DPOConfig, dpo_loss, form
from dpo_cli.types import LogProbs


def log_probs(*totals: float) -> LogProbs:
    return LogProbs(torch.tensor(totals, requires_grad=True), torch.full((len(totals),), 10))


def paper_loss(policy: list[float], reference: list[float], beta: float, smoothing: float) -> float:
    """-(1 - e) log sigma(beta h) - e log sigma(-beta h), by hand, for one pair."""
    h = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    return (1 - smoothing) * math.log1p(math.exp(-h)) + smoothing * math.log1p(math.exp(h))


def test_worked_example() -> None:
    policy, reference = log_probs(-2.30, -3.00), log_probs(-2.50, -2.50)
    out = dpo_loss(policy, reference, DPOConfig(beta=0.1))
    (grad,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert out.metrics["rewards/margins"].item() == pytest.approx(0.07, abs=1e-6)
    assert out.terms[0].losses.item() == pytest.approx(0.658760, abs=1e-6)
    assert grad.tolist() == pytest.approx([-0.048251, 0.048251], abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_loss_equals_the_papers_formula_in_float64(beta: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (-100 * torch.rand(20, generator=generator, dtype=torch.float64) for _ in range(2))
    out = dpo_loss(
        LogProbs(policy, torch.full((20,), 9)),
        LogProbs(reference, torch.full((20,), 9)),
        DPOConfig(beta=beta, label_smoothing=smoothing),
    )
    expected = [
        paper_loss(policy[i : i + 2].tolist(), reference[i : i + 2].tolist(), beta, smoothing)
        for i in range(0, 20, 2)
    ]

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_gradient_weighs_pairs_by_how_wrong_the_reward_is() -> None:
    """Section 4 of the paper: beta sigma(r_l - r_w) on each completion."""
    policy, reference = log_probs(-5.0, -1.0, -1.0, -5.0), log_probs(-3.0, -3.0, -3.0, -3.0)
    out = dpo_loss(policy, reference, DPOConfig(beta=0.5))
    (grad,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)
    wrong, right = (0.5 * torch.sigmoid(torch.tensor(x)).item() for x in (2.0, -2.0))

    assert grad.tolist() == pytest.approx([-wrong, wrong, -right, right], abs=1e-6)


def test_loss_has_its_closed_form_where_policy_is_reference() -> None:
    method, values = get("dpo"), log_probs(-7.0, -9.0)
    config = DPOConfig(label_smoothing=0.2)
    out = method.loss(values, values, config)

    assert method.at_reference is not None
    assert out.terms[0].losses.item() == pytest.approx(method.at_reference(config))
    assert out.metrics["rewards/accuracies"].item() == 0.5  # a tie


def test_extreme_log_ratios_stay_finite() -> None:
    policy, reference = log_probs(-5000.0, -1.0, -1.0, -5000.0), log_probs(-1.0, -5000.0, -5000.0, -1.0)
    out = dpo_loss(policy, reference, DPOConfig(beta=1.0))
    (grad,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert torch.isfinite(out.terms[0].losses).all()
    assert torch.isfinite(grad).all()


def test_gradcheck() -> None:
    policy = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference = LogProbs(torch.randn(6, dtype=torch.float64), torch.full((6,), 3))

    def loss(total: torch.Tensor) -> torch.Tensor:
        return (
            dpo_loss(LogProbs(total, torch.full((6,), 3)), reference, DPOConfig(label_smoothing=0.1))
            .terms[0]
            .losses
        )

    assert torch.autograd.gradcheck(loss, (policy,))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (DPOConfig(), "dpo, loss sigmoid; rewards include beta: 0.1 times"),
        (
            DPOConfig(loss={"sigmoid": 1, "sft": 0.2}, beta=0.5),
            "loss sigmoid + 0.2 sft; rewards include beta: 0.5",
        ),
        (
            DPOConfig(label_smoothing=0.1, f_divergence="js"),
            "loss sigmoid, label_smoothing 0.1, f_divergence js;",
        ),
        (DPOConfig(f_divergence="alpha", alpha=0.3), "loss sigmoid, f_divergence alpha 0.3;"),
    ],
)
def test_the_log_names_the_losses_and_what_bends_them(config: DPOConfig, named: str) -> None:
    assert named in form(config)
