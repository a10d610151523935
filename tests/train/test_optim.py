"""The learning rate as a function of the step."""

from __future__ import annotations

import pytest

from dpo_cli.recipe.schema import Optim
from dpo_cli.train.optim import build_optimizer, learning_rate, warmup_steps
from tests.fakes import tiny_llama


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_warm_up_rises_to_the_peak_and_every_step_learns(schedule: str) -> None:
    optim = Optim(lr=1.0, schedule=schedule, warmup=0.2)
    rates = [learning_rate(step, 50, optim) for step in range(50)]

    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[10] == 1.0
    assert all(rate > 0 for rate in rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert (rates[-1] == 1.0) == (schedule == "constant")


def test_warm_up_is_a_share_below_one_and_steps_from_one_on() -> None:
    assert warmup_steps(100, 0.1) == 10
    assert warmup_steps(100, 7) == 7
    assert warmup_steps(5, 7) == 5
    assert warmup_steps(100, 0.0) == 0


def test_vectors_are_not_decayed() -> None:
    optimizer = build_optimizer(tiny_llama(), Optim(weight_decay=0.1))

    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(weight.ndim == 1 for weight in optimizer.param_groups[1]["params"])
