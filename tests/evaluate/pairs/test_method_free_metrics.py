"""The axis that methods share: what it says of margins, and that no method's units get into it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from dpo_cli import methods
from dpo_cli.evaluate.pairs.held_out import Evaluation, evaluate_pairs
from dpo_cli.evaluate.pairs.method_free_metrics import FOLDS, axis, calibrate, slope
from dpo_cli.methods._base import Method
from dpo_cli.types import LogProbs, TokenGroup

COIN = np.log(0.5)


def prompts(n: int) -> list[str]:
    return [f"prompt {i:04}" for i in range(n)]


def drawn(n: int, temperature: float, seed: int = 0) -> np.ndarray:
    """Margins of pairs whose chosen side was drawn with P = sigma(margin / temperature)."""
    rng = np.random.default_rng(seed)
    size = np.abs(rng.normal(size=n)) * 3
    return np.where(rng.random(n) < 1 / (1 + np.exp(-size / temperature)), size, -size)


def test_the_slope_is_platts_optimum() -> None:
    margins = drawn(300, 2.0)
    target = 301 / 302

    def cost(a: float) -> float:
        return float(
            np.sum(target * np.logaddexp(0, -a * margins) + (1 - target) * np.logaddexp(0, a * margins))
        )

    found = minimize_scalar(cost, bounds=(0, 10), method="bounded", options={"xatol": 1e-10}).x
    assert slope(margins) == pytest.approx(found, rel=1e-5)
    assert slope(drawn(40_000, 2.0)) == pytest.approx(0.5, rel=0.05)


def test_no_pair_is_judged_by_a_fit_to_its_own_prompt() -> None:
    margins, names = drawn(60, 1.0), [name for name in prompts(30) for _ in range(2)]
    told = calibrate(margins, names)
    p = np.empty(60)
    for k in range(FOLDS):
        here = np.array([i // 2 % FOLDS == k for i in range(60)])  # names are in order
        p[here] = 1 / (1 + np.exp(-slope(margins[~here]) * margins[here]))

    assert told is not None
    assert (told.p_chosen, told.brier) == pytest.approx((p.mean(), ((1 - p) ** 2).mean()))
    assert told.log_likelihood == pytest.approx(np.log(p).mean())
    # A margin that only its own fold would flatter: one huge right answer among wrong ones.
    lone = np.array([100.0, *[-1.0] * 9])
    assert slope(lone) > 0
    assert calibrate(lone, prompts(10)).log_likelihood < COIN


def test_a_scale_of_the_reward_changes_nothing() -> None:
    margins = drawn(200, 1.5)
    one, other = calibrate(margins, prompts(200)), calibrate(margins * 1e4, prompts(200))

    assert vars(one) == pytest.approx(vars(other), rel=1e-9)


@pytest.mark.parametrize("margins", [np.zeros(20), -np.linspace(1, 2, 20)])
def test_margins_that_know_nothing_or_are_turned_round_are_a_coin(margins: np.ndarray) -> None:
    assert vars(calibrate(margins, prompts(20))) == pytest.approx(
        {"p_chosen": 0.5, "log_likelihood": COIN, "brier": 0.25}
    )


def test_margins_that_are_always_right_are_confident_but_finite() -> None:
    told = calibrate(np.linspace(1, 2, 50), prompts(50))

    assert 0.95 < told.p_chosen < 1
    assert -0.05 < told.log_likelihood < 0
    assert calibrate(np.array([5.0, 5.0]), ["a", "a"]) is None  # one prompt: nothing left to fit to


def test_margins_that_know_more_are_likelier() -> None:
    likelihoods = [calibrate(drawn(2000, t), prompts(2000)).log_likelihood for t in (0.3, 1.0, 4.0, 1e6)]

    assert likelihoods == sorted(likelihoods, reverse=True)
    assert likelihoods[-1] == pytest.approx(COIN, abs=0.01)
    # What was drawn with temperature 1 is told as well as by the true temperature.
    margins = drawn(2000, 1.0)
    assert likelihoods[1] == pytest.approx(-np.logaddexp(0, -margins).mean(), abs=0.005)


def test_log_probs_and_log_ratios_are_differences_in_nats() -> None:
    totals, tokens = np.array([-10.0, -12.0, -30.0, -9.0]), np.array([5, 4, 10, 3])
    reference = np.array([-11.0, -11.0, -31.0, -9.5])
    margins, no_tie = np.array([1.0, -1.0]), np.array([False, False])
    figures = axis(margins, ["a", "b"], totals, tokens, reference, no_tie).figures()

    assert figures["log_prob_margin"] == pytest.approx((2 - 21) / 2)
    assert figures["log_prob_per_token_margin"] == pytest.approx(((-2 + 3) + (-3 + 3)) / 2)
    assert figures["log_ratio_margin"] == pytest.approx(((1 + 1) + (1 - 0.5)) / 2)
    assert figures["log_ratio_per_token_margin"] == pytest.approx(((0.2 + 0.25) + (0.1 - 0.5 / 3)) / 2)
    assert figures["log_prob_accuracy"] == figures["log_ratio_per_token_accuracy"] == 0.5
    assert figures["log_ratio_accuracy"] == 1.0
    tied = axis(margins, ["a", "b"], totals, tokens, reference, ~no_tie).figures()
    assert tied["log_ratio_accuracy"] == tied["log_ratio_per_token_accuracy"] == 0.5
    assert (tied["log_prob_accuracy"], tied["log_ratio_margin"]) == (0.5, figures["log_ratio_margin"])


def evaluated(name: str, reference: LogProbs | None, method: Method | None = None) -> Evaluation:
    """Evaluate 40 pairs, mostly right, whose log-probs are the same for every method."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(2, 9, size=(40, 2))
    total = [
        -float(n) * rng.uniform(0.5, high) for row in tokens for n, high in zip(row, (2, 4), strict=True)
    ]
    policy = LogProbs(torch.tensor(total, dtype=torch.float32), torch.from_numpy(tokens.flatten()))
    ids = np.arange(9, dtype=np.int32)
    groups = [
        TokenGroup(ids[:1], tuple(ids[:n] for n in row), tuple(np.ones(n, dtype=bool) for n in row))
        for row in tokens
    ]
    method = method or methods.get(name)
    theirs = reference if method.needs_reference else None
    return evaluate_pairs(groups, prompts(40), policy, theirs, method, methods.get(name).config())


LANGUAGE_METHODS = ("dpo", "ipo", "kto", "orpo", "sft", "simpo")


def test_every_method_has_the_axis_in_the_same_units() -> None:
    generator = torch.Generator().manual_seed(2)
    reference = LogProbs(-10 * torch.rand(80, generator=generator), torch.full((80,), 5))
    figures = {name: evaluated(name, reference).axis.figures() for name in LANGUAGE_METHODS}
    compared = {name for name in LANGUAGE_METHODS if methods.get(name).needs_reference}

    for name, found in figures.items():
        assert found["log_prob_margin"] == pytest.approx(figures["dpo"]["log_prob_margin"])
        assert {"p_chosen", "log_likelihood", "brier", "log_prob_per_token_accuracy"} <= set(found)
        assert ("log_ratio_margin" in found) == (name in compared)
    # One implicit reward up to beta: one probability. SimPO's reward is the log-prob per token, as SFT's.
    assert figures["ipo"] == pytest.approx(figures["dpo"])
    assert figures["simpo"]["log_likelihood"] == pytest.approx(figures["sft"]["log_likelihood"])
    assert figures["simpo"]["log_likelihood"] != pytest.approx(figures["dpo"]["log_likelihood"])


def test_the_axis_is_logged_and_kept() -> None:
    reference = LogProbs(torch.zeros(80), torch.full((80,), 5))
    done = evaluated("dpo", reference)

    assert done.as_metrics()["eval/axis/log_ratio_margin"] == pytest.approx(
        done.metrics["rewards/margins"] / 0.1
    )
    assert done.as_dict()["axis"] == done.axis.figures()


def test_a_model_of_scores_has_only_its_own_reward_and_its_probability() -> None:
    figures = evaluated("reward", None).axis.figures()

    assert set(figures) == {"p_chosen", "log_likelihood", "brier"}
