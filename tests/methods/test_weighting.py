"""LD-DPO and WPO: what they read of single tokens, against float64 formulas written from the papers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dpo_cli import methods
from dpo_cli.methods._base import mean_loss
from dpo_cli.methods.dpo import DPOConfig, dpo_loss
from dpo_cli.train.fit import fit
from tests.methods.cases import random_pairs
from tests.train.small import small_run

PUBLIC = 0.6
"""Share of a total that stands in the public part, here."""


def test_ld_dpo_counts_private_tokens_by_alpha() -> None:
    policy, reference = random_pairs(5)
    policy, reference = (dataclasses.replace(v, public=PUBLIC * v.total) for v in (policy, reference))
    out = dpo_loss(policy, reference, DPOConfig(ld_alpha=0.25))
    count = PUBLIC + 0.25 * (1 - PUBLIC)
    gaps = [
        count * gap
        for gap in (
            (policy.total - reference.total).view(-1, 2) @ torch.tensor([1.0, -1.0]).double()
        ).tolist()
    ]

    expected = sum(math.log1p(math.exp(-0.1 * gap)) for gap in gaps) / 5
    assert mean_loss(out, policy).item() == pytest.approx(expected, rel=1e-12)
    whole = dpo_loss(policy, reference, DPOConfig())
    assert torch.equal(out.metrics["rewards/margins"], whole.metrics["rewards/margins"])


def test_ld_alpha_one_is_plain_dpo() -> None:
    policy, reference = random_pairs(5)
    policy, reference = (dataclasses.replace(v, public=PUBLIC * v.total) for v in (policy, reference))
    one, plain = (dpo_loss(policy, reference, DPOConfig(ld_alpha=alpha)) for alpha in (1.0, None))

    torch.testing.assert_close(one.terms[0].losses, plain.terms[0].losses)


def test_wpo_weighs_pairs_by_both_confidences_without_gradient() -> None:
    policy, reference = random_pairs(3)
    confidence = torch.tensor([-0.5, -1.0, 0.0, -0.2, -3.0, -0.1], dtype=torch.float64)
    weighted = dataclasses.replace(policy, confidence=confidence, total=policy.total.clone().requires_grad_())
    out = dpo_loss(weighted, reference, DPOConfig(wpo=True))
    plain = dpo_loss(policy, reference, DPOConfig())

    weights = torch.tensor([math.exp(-1.5), math.exp(-0.2), math.exp(-3.1)], dtype=torch.float64)
    torch.testing.assert_close(out.terms[0].losses.detach(), weights * plain.terms[0].losses)


def test_wpo_is_refused_where_a_loss_sorts_pairs_apart() -> None:
    (problem,) = methods.get("dpo").problems(DPOConfig(loss="aot", wpo=True))

    assert problem.where == "method.wpo" and "sorts them apart" in problem.what


@pytest.mark.parametrize("knob", ["method.ld_alpha=0.3", "method.wpo=true"])
@pytest.mark.parametrize("path", ["packed", "padded"])
def test_a_step_is_invariant_to_micro_batching(knob: str, path: str, tmp_path: Path) -> None:
    losses = []
    for budget in (1, 10_000):
        (tmp_path / str(budget)).mkdir()
        run, recorder = small_run(
            tmp_path / str(budget), knob, "train.max_steps=2", token_budget=budget, path=path
        )
        fit(run)
        losses.append(recorder.losses)

    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    if knob == "method.ld_alpha=0.3":
        assert losses[0][0] == pytest.approx(math.log(2), abs=1e-4), (
            "policy = reference in the public part too"
        )
