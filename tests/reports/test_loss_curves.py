"""A loss over the margin: the method's own, against formulas written from the papers and against differences of itself."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dpo_cli import methods
from dpo_cli.methods.dpo import DPOConfig
from dpo_cli.methods.ipo import IPOConfig
from dpo_cli.methods.reward import RewardConfig
from dpo_cli.methods.simpo import SimPOConfig
from dpo_cli.reports.loss_curves import Landscape, charts, landscape, no_margin
from tests.methods.cases import CONFIGS

WITH_MARGIN = {key: config for key, config in CONFIGS.items() if key != "dpo-sft"}


def shown(config: Any, *betas: float) -> Landscape:
    return landscape(methods.get(config.name), config, betas)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_dpo_is_the_logistic_loss_of_beta_times_the_margin() -> None:
    found = shown(DPOConfig(beta=0.1))

    assert [curve.beta for curve in found.curves] == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert found.unit == "log-ratio to the reference of chosen minus rejected, nats" and found.notes == []
    for curve in found.curves:
        beta = curve.beta or 0
        assert curve.margin[0] == -40 and curve.margin[40] == 0 and curve.margin[-1] == 40
        assert curve.loss == pytest.approx([softplus(-beta * m) for m in curve.margin], abs=1e-9)
        assert curve.gradient == pytest.approx(
            [-beta / (1 + math.exp(beta * m)) for m in curve.margin], abs=1e-9
        )


def test_ipo_is_a_parabola_around_its_target_and_simpo_has_its_own_margin() -> None:
    (ipo,) = shown(IPOConfig(), 0.2).curves
    assert ipo.loss == pytest.approx([(m - 2.5) ** 2 for m in ipo.margin])
    assert ipo.gradient == pytest.approx([2 * (m - 2.5) for m in ipo.margin])

    found = shown(SimPOConfig(beta=2.0, gamma=1.0), 2.0)
    assert "nats per token" in found.unit
    assert found.curves[0].loss == pytest.approx([softplus(1 - 2 * m) for m in found.curves[0].margin])


def test_a_reward_model_has_scores_and_no_beta() -> None:
    (curve,) = (found := shown(RewardConfig())).curves

    assert found.unit == "score of chosen minus rejected" and curve.name == "the loss"
    assert curve.loss == pytest.approx([softplus(-m) for m in curve.margin])


@pytest.mark.parametrize("key", WITH_MARGIN)
def test_the_gradient_is_that_of_the_loss_for_every_method_of_pairs(key: str) -> None:
    config = WITH_MARGIN[key]
    method = methods.get(config.name)
    assert no_margin(method, config) == ""
    curve = landscape(method, config, [getattr(config, "beta", 1.0)]).curves[0]

    step = curve.margin[1] - curve.margin[0]
    for k in (20, 35, 42, 60):
        central = (curve.loss[k + 1] - curve.loss[k - 1]) / (2 * step)
        assert curve.gradient[k] == pytest.approx(
            central, rel=0.15, abs=2e-2 * max(map(abs, curve.gradient[k - 1 : k + 2])) + 1e-9
        )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (methods.get("kto").config(), "kto judges one labelled completion at a time"),
        (methods.get("sft").config(), "sft imitates one completion"),
        (DPOConfig(loss="sft"), "the loss reads the chosen completion alone"),
    ],
)
def test_a_loss_without_a_margin_says_so(config: Any, expected: str) -> None:
    assert expected in no_margin(methods.get(config.name), config)


def test_a_loss_that_reads_each_answer_apart_says_how_they_move() -> None:
    assert "reads each answer apart" in shown(DPOConfig(loss="apo_zero")).notes[0]
    assert "per token" in shown(DPOConfig(loss="sigmoid_norm")).unit
    alone = ("sigmoid", "robust", "hinge", "discopop", "sigmoid_norm", "aot")
    assert [name for name in alone if shown(DPOConfig(loss=name), 0.1).notes] == []


def test_an_exponential_does_not_flatten_the_picture() -> None:
    assert all(chart.y_range is None for chart in charts(shown(DPOConfig())))
    loss, gradient = charts(shown(DPOConfig(f_divergence="forward_kl")))
    assert loss.y_range is not None and loss.y_range[1] == pytest.approx(20 * (1 + math.log(2)))
    assert gradient.y_range is not None
