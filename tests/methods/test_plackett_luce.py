"""Plackett-Luce DPO: against the formula in float64, against DPO on pairs, and on rankings from file to learned order."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dpo_cli.methods.dpo import DPOConfig, dpo_loss
from dpo_cli.methods.plackett_luce import PlackettLuceConfig, plackett_luce_loss
from dpo_cli.train.fit import fit
from dpo_cli.train.step_plan import examples_of_step
from dpo_cli.types import LogProbs
from tests.methods.cases import random_pairs
from tests.train.small import small_run, weights

SIZES = (4, 2, 3)
CONFIG = PlackettLuceConfig(beta=0.3)


def random_rankings(seed: int = 0) -> tuple[LogProbs, LogProbs]:
    """Give (policy, reference) of groups of `SIZES` completions, float64."""
    policy, reference = random_pairs(5, seed=seed)
    first = slice(0, sum(SIZES))
    cut = [LogProbs(values.total[first], values.tokens[first]) for values in (policy, reference)]
    return dataclasses.replace(cut[0], sizes=SIZES), cut[1]


def rewards_of(policy: LogProbs, reference: LogProbs) -> list[list[float]]:
    rewards = CONFIG.beta * (policy.total - reference.total)
    return [part.tolist() for part in rewards.split(list(SIZES))]


def test_loss_equals_the_papers_formula_in_float64() -> None:
    policy, reference = random_rankings()
    out = plackett_luce_loss(policy, reference, CONFIG)
    expected = [
        -sum(math.log(math.exp(r[k]) / sum(math.exp(x) for x in r[k:])) for k in range(len(r)))
        for r in rewards_of(policy, reference)
    ]
    assert out.terms[0].losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_metrics_hold_the_best_against_the_mean_of_the_others() -> None:
    policy, reference = random_rankings(seed=3)
    metrics = plackett_luce_loss(policy, reference, CONFIG).metrics
    rewards = rewards_of(policy, reference)
    margins = [r[0] - sum(r[1:]) / len(r[1:]) for r in rewards]
    order = [[r[i] > r[j] for i in range(len(r)) for j in range(i + 1, len(r))] for r in rewards]
    assert metrics["rewards/margins"].tolist() == pytest.approx(margins, rel=1e-5)
    assert metrics["rewards/accuracies"].tolist() == pytest.approx([sum(o) / len(o) for o in order])
    assert metrics["lengths/chosen"].tolist() == [policy.tokens[i].item() for i in (0, 4, 6)]


def test_of_two_completions_loss_gradient_and_metrics_are_those_of_dpo() -> None:
    values, reference = random_pairs(8, seed=1)
    ours, theirs = (
        dataclasses.replace(values, total=values.total.clone().requires_grad_()) for _ in range(2)
    )
    ranked = plackett_luce_loss(ours, reference, CONFIG)
    paired = dpo_loss(theirs, reference, DPOConfig(beta=CONFIG.beta))
    ranked.terms[0].losses.sum().backward()
    paired.terms[0].losses.sum().backward()

    assert torch.allclose(ranked.terms[0].losses, paired.terms[0].losses, rtol=1e-12)
    assert ours.total.grad is not None and theirs.total.grad is not None
    assert torch.allclose(ours.total.grad, theirs.total.grad, rtol=1e-10)
    assert ranked.metrics.keys() == paired.metrics.keys()
    for name, told in paired.metrics.items():
        assert torch.allclose(ranked.metrics[name].double(), told.double(), rtol=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [0.0, 3e3])
def test_gradients_are_finite_and_absent_places_have_none(dtype: torch.dtype, far: float) -> None:
    """Gradients of a ranking's rewards sum to 0, however far apart they are: only differences count."""
    total = torch.linspace(far, 0, sum(SIZES), dtype=dtype).requires_grad_()
    policy = LogProbs(total, torch.ones(sum(SIZES), dtype=torch.int64), sizes=SIZES)
    reference = LogProbs(torch.zeros_like(total), policy.tokens)
    plackett_luce_loss(policy, reference, CONFIG).terms[0].losses.sum().backward()
    assert total.grad is not None and total.grad.isfinite().all()
    for part in total.grad.split(list(SIZES)):
        assert part.sum().item() == pytest.approx(0, abs=1e-6)


def ranked_rows(n: int) -> list[dict[str, object]]:
    """Give rankings of three and of two answers, best first, that end kindly, plainly and curtly."""
    ends = ("thank you.", "that is all.", "now go away.")
    return [
        {"prompt": f"What of {i}?", "completions": [f"Well, {i}, {end}" for end in ends[: 2 + (i % 2)]]}
        for i in range(n)
    ]


def test_a_run_learns_the_order_of_whole_rankings_however_a_step_is_cut(tmp_path: Path) -> None:
    wanted = ("method.name=plackett_luce", "optim.lr=3e-3", "data.train[0].format=ranking")
    runs = []
    for name, budget in (("whole", 10_000), ("cut", 120)):
        (tmp_path / name).mkdir()
        run, told = small_run(tmp_path / name, *wanted, rows=ranked_rows(24), token_budget=budget)  # type: ignore[arg-type]
        assert sorted({len(group.completions) for group in run.groups}) == [2, 3]
        assert len(run.groups) == 24, "a ranking is one example"
        fit(run)
        runs.append((told, weights(run)))
    (whole, its), (cut, others) = runs

    first = [len(run.groups[i].completions) for i in examples_of_step(0, 24, 8, run.recipe.train.seed)]
    expected = sum(math.lgamma(size + 1) for size in first) / len(first)
    assert whole.losses[0] == pytest.approx(expected, rel=1e-3), "ln K! where the policy is the reference"
    assert whole.losses == pytest.approx(cut.losses, rel=1e-4)
    assert torch.allclose(its, others, atol=1e-4)
    assert whole.rows[-1]["train/rewards/accuracies"] > 0.9 > whole.rows[0]["train/rewards/accuracies"]
