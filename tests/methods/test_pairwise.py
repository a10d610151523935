"""The pairwise losses against float64 formulas written from the papers, in plain math."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import exp, log
from typing import Any, NamedTuple, get_args

import pytest
import torch

from dpo_cli.methods._base import mean_loss
from dpo_cli.methods._pairwise import LOSSES, SCORES, LossName, power_score
from dpo_cli.methods.dpo import DPOConfig, dpo_loss
from dpo_cli.types import LogProbs
from tests.methods.cases import part, random_pairs, with_gradient

BETA, E, TAU = 0.3, 0.1, 0.4


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


class Pair(NamedTuple):
    """One pair: ratios u = pi / pi_ref, token counts, and a divergence's f'(u)."""

    u_w: float
    u_l: float
    n_w: int
    n_l: int
    slope: Callable[[float], float] = log

    @property
    def m(self) -> float:
        return BETA * (self.slope(self.u_w) - self.slope(self.u_l))


def exo(p: Pair) -> float:
    """Eq. 16: the KL divergence from the policy's preference to the smoothed label."""
    weight_w, weight_l = exp(BETA * p.slope(p.u_w)), exp(BETA * p.slope(p.u_l))
    p_w, p_l = weight_w / (weight_w + weight_l), weight_l / (weight_w + weight_l)
    return p_w * log(p_w / (1 - E)) + p_l * log(p_l / E)


def discopop(p: Pair) -> float:
    """Eq. 5: logistic and exponential loss, blended by the margin."""
    return (1 - sigma(p.m / TAU)) * log(1 + exp(-p.m)) + sigma(p.m / TAU) * exp(-p.m)


PAPERS: dict[LossName, Callable[[Pair], float]] = {
    "sigmoid": lambda p: -(1 - E) * log(sigma(p.m)) - E * log(sigma(-p.m)),
    "robust": lambda p: ((1 - E) * -log(sigma(p.m)) - E * -log(sigma(-p.m))) / (1 - 2 * E),
    "hinge": lambda p: max(0.0, 1 - p.m),
    "exo_pair": exo,
    "nca_pair": lambda p: (
        -log(sigma(BETA * log(p.u_w)))
        - 0.5 * (log(sigma(-BETA * log(p.u_w))) + log(sigma(-BETA * log(p.u_l))))
    ),
    "bco_pair": lambda p: -log(sigma(BETA * log(p.u_w))) - log(sigma(-BETA * log(p.u_l))),
    "sppo_hard": lambda p: (log(p.u_w) - 1 / (2 * BETA)) ** 2 + (log(p.u_l) + 1 / (2 * BETA)) ** 2,
    "apo_zero": lambda p: 1 - sigma(BETA * log(p.u_w)) + sigma(BETA * log(p.u_l)),
    "apo_down": lambda p: sigma(BETA * log(p.u_w)) + 1 - sigma(BETA * (log(p.u_w) - log(p.u_l))),
    "discopop": discopop,
    "sigmoid_norm": lambda p: -log(sigma(BETA * (p.slope(p.u_w) / p.n_w - p.slope(p.u_l) / p.n_l))),
}
"""Losses that look at one pair at a time."""

SLOPES: dict[str, Callable[[float], float]] = {
    "reverse_kl": log,
    "forward_kl": lambda u: 1 - 1 / u,
    "js": lambda u: log(2 * u / (1 + u)),
    "alpha": lambda u: (1 - u**-0.3) / 0.3,  # alpha 0.7
}
"""f'(u) of the f-DPO paper, shifted to zero at u = 1."""


def config_of(name: LossName, **knobs: Any) -> DPOConfig:
    return DPOConfig(loss=name, beta=BETA, label_smoothing=E, tau=TAU, alpha=0.7, **knobs)


def pairs_of(policy: LogProbs, reference: LogProbs, slope: Callable[[float], float]) -> list[Pair]:
    u = [math.exp(ratio) for ratio in (policy.total - reference.total).tolist()]
    n = policy.tokens.tolist()
    return [Pair(u[i], u[i + 1], n[i], n[i + 1], slope) for i in range(0, len(u), 2)]


@pytest.mark.parametrize("name", PAPERS)
def test_loss_equals_the_papers_formula_in_float64(name: LossName) -> None:
    policy, reference = random_pairs(12, seed=1)
    out = dpo_loss(policy, reference, config_of(name))

    assert out.terms[0].losses.tolist() == pytest.approx(
        [PAPERS[name](p) for p in pairs_of(policy, reference, log)], rel=1e-11
    )


@pytest.mark.parametrize("divergence", SLOPES)
@pytest.mark.parametrize("name", [name for name in PAPERS if "f_divergence" in LOSSES[name].reads])
def test_loss_of_an_f_divergence_equals_the_papers_formula(name: LossName, divergence: str) -> None:
    policy, reference = random_pairs(12, seed=2)
    out = dpo_loss(policy, reference, config_of(name, f_divergence=divergence))
    expected = [PAPERS[name](p) for p in pairs_of(policy, reference, SLOPES[divergence])]

    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-10)


def test_every_loss_has_a_formula_here_or_a_test_of_its_own() -> None:
    assert set(LOSSES) == set(get_args(LossName)) == {*PAPERS, "sft", "aot", "aot_unpaired"}


def aot_by_hand(a: list[float], b: list[float]) -> list[float]:
    """Conservative DPO of the sorted differences."""
    margins = [BETA * (x - y) for x, y in zip(sorted(a), sorted(b), strict=True)]
    return [-(1 - E) * log(sigma(m)) - E * log(sigma(-m)) for m in margins]


def test_aot_equals_the_papers_formula_over_the_batch() -> None:
    policy, reference = random_pairs(9, seed=3)
    p, q = policy.total.tolist(), reference.total.tolist()
    paired = aot_by_hand(
        [p[i] - p[i + 1] for i in range(0, 18, 2)], [q[i] - q[i + 1] for i in range(0, 18, 2)]
    )
    unpaired = aot_by_hand([p[i] - q[i] for i in range(0, 18, 2)], [p[i] - q[i] for i in range(1, 18, 2)])

    for name, expected in (("aot", paired), ("aot_unpaired", unpaired)):
        out = dpo_loss(policy, reference, config_of(name))  # type: ignore[arg-type]
        assert sorted(out.terms[0].losses.tolist()) == pytest.approx(sorted(expected), rel=1e-12)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_aot_sorts_within_the_micro_batch(name: LossName) -> None:
    """Alone a pair is plain DPO; together the pairs' values meet in another order."""
    policy, reference = random_pairs(9, seed=3)
    whole = dpo_loss(policy, reference, config_of(name)).terms[0].losses.sum()
    alone = [
        dpo_loss(part(policy, i, i + 1), part(reference, i, i + 1), config_of(name)).terms[0].losses
        for i in range(9)
    ]
    plain = dpo_loss(policy, reference, config_of("sigmoid")).terms[0].losses

    torch.testing.assert_close(torch.cat(alone), plain)
    assert (whole - plain.sum()).abs() > 1e-3


def test_sft_is_the_nll_per_chosen_token_of_the_step() -> None:
    policy, reference = random_pairs(6)
    out = dpo_loss(policy, reference, DPOConfig(loss="sft"))
    expected = -sum(policy.total.tolist()[0::2]) / sum(policy.tokens.tolist()[0::2])

    assert out.terms[0].unit == "token"
    assert mean_loss(out, policy).item() == pytest.approx(expected, rel=1e-12)


def test_a_mix_is_the_weighted_sum_of_its_losses() -> None:
    policy, reference = random_pairs(6)
    mix = DPOConfig(loss={"sigmoid": 1.0, "apo_down": 0.25, "sft": 2.0})
    parts = {
        name: mean_loss(dpo_loss(policy, reference, DPOConfig(loss=name)), policy).item()
        for name in mix.loss  # type: ignore[union-attr]
    }
    expected = parts["sigmoid"] + 0.25 * parts["apo_down"] + 2 * parts["sft"]

    assert mean_loss(dpo_loss(policy, reference, mix), policy).item() == pytest.approx(expected, rel=1e-12)


def test_discopop_does_not_overflow_where_its_weight_is_zero() -> None:
    """exp(-m) is infinite in fp32 below m = -88, its weight zero below m = -5."""
    policy = with_gradient(LogProbs(torch.tensor([-900.0, -1.0]), torch.tensor([9, 9])))
    out = dpo_loss(
        policy, LogProbs(torch.tensor([-1.0, -1.0]), policy.tokens), DPOConfig(loss="discopop", beta=1.0)
    )
    (gradient,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert out.terms[0].losses.item() == pytest.approx(899.0)
    assert gradient.tolist() == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize(("tau", "falls"), [(0.05, True), (0.102, True), (0.103, False)])
def test_discopop_lowers_the_margin_at_first_where_tau_is_small(tau: float, falls: bool) -> None:
    """Its slope at m = 0 is (1 - ln 2) / (4 tau) - 3/4."""
    policy = LogProbs(torch.zeros(2, dtype=torch.float64, requires_grad=True), torch.ones(2))
    reference = LogProbs(policy.total.detach(), policy.tokens)
    out = dpo_loss(policy, reference, DPOConfig(loss="discopop", beta=1.0, tau=tau))
    (gradient,) = torch.autograd.grad(out.terms[0].losses.sum(), policy.total)

    assert gradient[0].item() == pytest.approx((1 - log(2)) / (4 * tau) - 0.75, rel=1e-12)
    assert (gradient[0] > 0) == falls


def test_alpha_runs_from_forward_to_reverse_kl() -> None:
    log_ratio = torch.linspace(-3, 3, 7, dtype=torch.float64)

    assert torch.equal(power_score(log_ratio, 1.0), log_ratio)
    torch.testing.assert_close(power_score(log_ratio, 1 - 1e-9), log_ratio, rtol=1e-7, atol=0)
    torch.testing.assert_close(SCORES["forward_kl"](log_ratio, 0.5), 1 - (-log_ratio).exp())


def test_rewards_are_beta_times_the_log_ratio_whatever_the_divergence() -> None:
    policy, reference = random_pairs(3)
    plain, other = (
        dpo_loss(policy, reference, DPOConfig(f_divergence=name)).metrics  # type: ignore[arg-type]
        for name in ("reverse_kl", "js")
    )

    assert torch.equal(plain["rewards/margins"], other["rewards/margins"])
