"""KTO's loss against a float64 formula written from the paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dpo_cli.methods.kto import METHOD, KTOConfig, kto_advice, kto_loss, kto_prepare, kto_reward
from dpo_cli.types import DataNeeds, LogProbs
from tests.reference.test_cached import group

LABELS = torch.tensor([True, False, False, True, True, False])
TOKENS = torch.full((6,), 7)


def log_probs(*totals: float, labels: torch.Tensor = LABELS) -> LogProbs:
    return LogProbs(torch.tensor(totals, dtype=torch.float64, requires_grad=True), TOKENS, labels=labels)


def paper_loss(ratio: float, wanted: bool, z: float, config: KTOConfig) -> float:
    """Equation 7 by hand: lambda minus the value of one completion."""
    if wanted:
        weight, x = config.desirable_weight, config.beta * (ratio - z)
    else:
        weight, x = config.undesirable_weight, config.beta * (z - ratio)
    return weight - weight / (1 + math.exp(-x))


CONFIGS = [KTOConfig(), KTOConfig(beta=0.4, desirable_weight=1.3, undesirable_weight=0.7)]


@pytest.mark.parametrize("drift", [-3.0, 0.0, 2.5])
@pytest.mark.parametrize("config", CONFIGS)
def test_loss_equals_the_papers_formula_in_float64(config: KTOConfig, drift: float) -> None:
    policy = log_probs(-9.0, -30.0, -1.0, -5.5, -70.0, -12.0)
    reference = log_probs(-11.0, -22.0, -1.5, -5.0, -40.0, -12.0)
    out = kto_loss(policy, reference, config, torch.tensor(drift, dtype=torch.float64))
    ratios = (policy.total - reference.total).tolist()
    expected = [
        paper_loss(r, bool(label), max(0.0, drift), config) for r, label in zip(ratios, LABELS, strict=True)
    ]

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert out.terms[0].unit == "example"


def paper_apo_zero(ratio: float, wanted: bool, config: KTOConfig) -> float:
    """Equation 7 of arXiv:2408.06266 by hand, the half that a completion's label selects."""
    likes = 1 / (1 + math.exp(-config.beta * ratio))
    return config.desirable_weight * (1 - likes) if wanted else config.undesirable_weight * likes


@pytest.mark.parametrize("config", [replace(config, loss="apo_zero_unpaired") for config in CONFIGS])
def test_apo_zero_equals_its_papers_formula_in_float64(config: KTOConfig) -> None:
    policy = log_probs(-9.0, -30.0, -1.0, -5.5, -70.0, -12.0)
    reference = log_probs(-11.0, -22.0, -1.5, -5.0, -40.0, -12.0)
    out = kto_loss(policy, reference, config)
    ratios = (policy.total - reference.total).tolist()
    expected = [paper_apo_zero(r, bool(label), config) for r, label in zip(ratios, LABELS, strict=True)]

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert not {name for name in out.metrics if name.startswith("kto/kl")}, "there is no drift to log"


class NoForward:
    """A step that must not be asked for anything."""

    def mean_mismatched_log_ratio(self) -> torch.Tensor:
        raise AssertionError("scored mismatched completions")


def test_apo_zero_asks_for_no_mismatched_completions() -> None:
    apo = KTOConfig(loss="apo_zero_unpaired")

    assert METHOD.needs(KTOConfig()) == DataNeeds("labelled", mismatched=True)
    assert METHOD.needs(apo) == DataNeeds("labelled", mismatched=False)
    assert kto_prepare(NoForward(), apo) is None
    with pytest.raises(AssertionError, match="scored mismatched"):
        kto_prepare(NoForward(), KTOConfig())


def test_where_policy_is_reference_the_loss_is_half_the_mean_weight() -> None:
    same = log_probs(*[-4.0] * 6)
    out = kto_loss(same, same, KTOConfig(desirable_weight=2.0), torch.zeros(()))

    assert out.terms[0].losses.mean().item() == pytest.approx(0.5 * (3 * 2.0 + 3 * 1.0) / 6)


def test_the_drift_passes_no_gradient_and_is_logged_before_clamping() -> None:
    drift = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    policy = log_probs(*[-4.0] * 6)
    out = kto_loss(policy, log_probs(*[-4.0] * 6), KTOConfig(), drift)
    out.terms[0].losses.sum().backward()

    assert drift.grad is None
    assert out.metrics["kto/kl"].tolist() == [-1.5] * 6
    assert out.metrics["kto/kl_clamped_frac"].tolist() == [1.0] * 6


def test_rewards_count_under_their_own_label_only() -> None:
    out = kto_loss(log_probs(*[-4.0] * 6), log_probs(*[-14.0] * 6), KTOConfig(beta=0.1), torch.zeros(()))

    assert torch.equal(out.metrics["rewards/chosen"].isnan(), ~LABELS)
    assert torch.equal(out.metrics["rewards/rejected"].isnan(), LABELS)
    assert out.metrics["rewards/chosen"].nanmean().item() == pytest.approx(1.0)
    assert out.metrics["rewards/accuracies"].tolist() == LABELS.float().tolist()
    rewards, wanted = out.ranked["rewards/auc"]
    assert rewards.tolist() == pytest.approx([1.0] * 6)
    assert not rewards.requires_grad and wanted.tolist() == LABELS.tolist()


def test_a_reward_at_the_drift_is_half_right_whatever_its_label() -> None:
    values = log_probs(*[-4.0] * 6)
    assert (
        kto_loss(values, values, KTOConfig(), torch.zeros(())).metrics["rewards/accuracies"].tolist()
        == [0.5] * 6
    )


@pytest.mark.parametrize(
    "labels", [torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool), LABELS]
)
def test_extreme_log_ratios_stay_finite(labels: torch.Tensor) -> None:
    policy = log_probs(-1.0, -501.0, -1.0, -501.0, -1.0, -501.0, labels=labels)
    out = kto_loss(
        policy, log_probs(-501.0, -1.0, -501.0, -1.0, -1.0, -501.0), KTOConfig(beta=1.0), torch.tensor(500.0)
    )
    (grad,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert torch.isfinite(out.terms[0].losses).all()
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
def test_gradcheck(loss: str) -> None:
    total = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference = LogProbs(torch.randn(6, dtype=torch.float64), TOKENS)

    drift = torch.tensor(0.3, dtype=torch.float64) if loss == "kto" else None

    def losses(values: torch.Tensor) -> torch.Tensor:
        policy = LogProbs(values, TOKENS, labels=LABELS)
        return kto_loss(policy, reference, KTOConfig(loss=loss), drift).terms[0].losses

    assert torch.autograd.gradcheck(losses, (total,))


def test_the_reward_is_beta_times_the_log_ratio() -> None:
    assert kto_reward(
        log_probs(*[-4.0] * 6), log_probs(*[-6.0] * 6), KTOConfig(beta=0.2)
    ).tolist() == pytest.approx([0.4] * 6)


def test_class_weights_outside_the_papers_range_are_told_with_a_better_one() -> None:
    wanted, unwanted = group([1]), group([2])
    object.__setattr__(wanted, "label", True)
    object.__setattr__(unwanted, "label", False)

    assert kto_advice(KTOConfig(), [wanted, unwanted]) == []
    (told,) = kto_advice(KTOConfig(), [wanted, unwanted, unwanted, unwanted])
    assert "method.desirable_weight=3 to 4" in told
    assert kto_advice(KTOConfig(desirable_weight=3.5), [wanted, unwanted, unwanted, unwanted]) == []
    assert "every completion is wanted" in kto_advice(KTOConfig(), [wanted])[0]
