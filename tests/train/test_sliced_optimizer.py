"""Optimizers that keep less: equal to torch's in fp32, unbiased in bf16, resumed to the bit, and no step that is not finite changes anything."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpo_cli.recipe.optim import Optim
from dpo_cli.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint, take_snapshot
from dpo_cli.train import sliced_optimizer
from dpo_cli.train.fit import fit
from dpo_cli.train.optim import build_optimizer, update_sizes
from dpo_cli.train.sliced_optimizer import SlicedOptimizer, round_stochastically
from dpo_cli.train.state import Run
from tests.fakes import tiny_llama
from tests.train.small import small_run, weights

KINDS = ["adamw", "rmsprop", "adamw_8bit", "rmsprop_8bit"]
EACH = list(itertools.product(KINDS, [torch.float32, torch.bfloat16]))
SETTINGS: dict[str, Any] = {"lr": 1e-3, "eps": 1e-8, "betas": (0.9, 0.99), "alpha": 0.99}


def need(kind: str) -> None:
    """Skip where 8-bit moments cannot be kept."""
    if kind.endswith("_8bit"):
        pytest.importorskip("bitsandbytes", reason="needs dpo-cli[quantize]")


def groups_of(dtype: torch.dtype) -> list[dict[str, Any]]:
    """Return a matrix that is decayed and a vector that is not."""
    torch.manual_seed(0)
    matrix, vector = (nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((70, 80), (30,)))
    return [
        {"params": [matrix], "weight_decay": 0.1, **SETTINGS},
        {"params": [vector], "weight_decay": 0.0, **SETTINGS},
    ]


def trained(optimizer: torch.optim.Optimizer, steps: int = 20) -> list[Tensor]:
    """Step on the same gradients each time; return the weights."""
    found = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.manual_seed(1)
    for step in range(steps):
        for weight in found:
            weight.grad = torch.randn(weight.shape).to(weight.dtype)
        optimizer.rounding_seed = step  # type: ignore[attr-defined]
        optimizer.step()
    return [weight.detach() for weight in found]


@pytest.mark.parametrize("size", [sliced_optimizer.SLICE, 512])
@pytest.mark.parametrize("kind", ["adamw", "rmsprop"])
def test_fp32_weights_are_torchs_to_the_bit(
    kind: sliced_optimizer.Kind, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliced_optimizer, "SLICE", size)
    groups = groups_of(torch.float32)
    theirs = torch.optim.AdamW(groups, fused=True) if kind == "adamw" else torch.optim.RMSprop(groups)

    mine = trained(SlicedOptimizer(groups_of(torch.float32), kind))

    for found, expected in zip(mine, trained(theirs), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("rule", ["adamw", "rmsprop"])
def test_moments_in_8_bits_stay_close(rule: str) -> None:
    need("_8bit")
    start = [group["params"][0].detach() for group in groups_of(torch.float32)]
    whole = trained(SlicedOptimizer(groups_of(torch.float32), rule))  # type: ignore[arg-type]
    optimizer = SlicedOptimizer(groups_of(torch.float32), f"{rule}_8bit")  # type: ignore[arg-type]

    found = trained(optimizer)

    assert (found[0] - whole[0]).norm() < 0.05 * (whole[0] - start[0]).norm()
    assert torch.equal(found[1], whole[1])  # a vector's moments are whole
    matrix = optimizer.param_groups[0]["params"][0]
    kept = sum(tensor.nbytes for name, tensor in optimizer.state[matrix].items() if name != "step")
    assert kept == (2 if rule == "adamw" else 1) * (matrix.numel() + 4 * -(-matrix.numel() // 256))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rounding_is_right_on_average_and_exact_where_it_can_be(sign: float) -> None:
    torch.manual_seed(0)
    n, low, step = 200_000, sign * 1.5, sign * 2**-7
    noise = torch.empty(n, dtype=torch.int16).random_(-(2**15), 2**15)

    up = round_stochastically(torch.full((n,), low + 0.3 * step), noise).float()

    assert set(up.unique().tolist()) == {low, low + step}
    assert (up == low + step).float().mean().item() == pytest.approx(0.3, abs=0.005)
    exact = torch.randn(n).bfloat16()
    assert torch.equal(round_stochastically(exact.float(), noise), exact)


def test_small_steps_are_lost_to_the_nearest_and_kept_by_stochastic_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step of 1e-5 on weights of 1 is a hundredth of what bf16 can show."""

    def moved() -> float:
        weight = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
        optimizer = SlicedOptimizer(
            [{"params": [weight], "weight_decay": 0.0, **SETTINGS, "lr": 1e-5}], "adamw"
        )
        for step in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.rounding_seed = step
            optimizer.step()
        return (1 - weight.detach().float()).mean().item()

    assert moved() == pytest.approx(100 * 1e-5, rel=0.1)
    monkeypatch.setattr(sliced_optimizer, "round_stochastically", lambda values, _noise: values.bfloat16())
    assert moved() == 0.0


@pytest.mark.parametrize(("kind", "dtype"), EACH)
def test_a_step_that_is_not_finite_changes_nothing(kind: sliced_optimizer.Kind, dtype: torch.dtype) -> None:
    need(kind)
    optimizer = SlicedOptimizer(groups_of(dtype), kind)
    trained(optimizer, 2)
    found = [weight for group in optimizer.param_groups for weight in group["params"]]
    before = [tensor.clone() for weight in found for tensor in (weight, *optimizer.state[weight].values())]
    for weight in found:
        weight.grad = torch.full_like(weight, torch.nan)
    optimizer.found_inf = torch.ones(())

    optimizer.step()

    after = [tensor for weight in found for tensor in (weight, *optimizer.state[weight].values())]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def run_of(folder: Path, kind: str, dtype: torch.dtype) -> Run:
    """Return a run of 6 steps."""
    overrides = ("train.max_steps=6", f"optim.name={kind}")
    return small_run(folder, *overrides, model=tiny_llama().to(dtype))[0]


@pytest.mark.parametrize(("kind", "dtype"), EACH)
def test_a_resumed_run_equals_the_uninterrupted_one(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    need(kind)
    run = run_of(tmp_path, kind, dtype)
    run.events = [_SaveAt(3, tmp_path / "checkpoints")]
    fit(run)

    again = run_of(tmp_path, kind, dtype)
    found, _ = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    load_checkpoint(found, again.scorer.model, again.optimizer)
    again.step = found.step
    fit(again)

    assert found.step == 3 and not torch.equal(weights(run), weights(run_of(tmp_path, kind, dtype)))
    assert torch.equal(weights(again), weights(run))


class _SaveAt:
    def __init__(self, step: int, folder: Path) -> None:
        self.step, self.folder = step, folder

    def after_step(self, run: Run) -> None:
        if run.step == self.step:
            snapshot = take_snapshot(run.scorer.model, run.optimizer)
            save_checkpoint(self.folder, run.step, snapshot, {}, keep_last=1)


def test_the_recipe_chooses_the_optimizer() -> None:
    low = tiny_llama().bfloat16()

    assert isinstance(build_optimizer(tiny_llama(), Optim()), torch.optim.AdamW)
    assert isinstance(build_optimizer(low, Optim()), SlicedOptimizer)
    rmsprop = build_optimizer(tiny_llama(), Optim(name="rmsprop", alpha=0.9))
    assert isinstance(rmsprop, SlicedOptimizer) and rmsprop.param_groups[0]["alpha"] == 0.9
    assert update_sizes(tiny_llama(), rmsprop) == {}


def test_the_same_seed_rounds_the_same_way_and_another_one_does_not() -> None:
    first, second = (trained(SlicedOptimizer(groups_of(torch.bfloat16), "adamw"), 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.manual_seed(5)  # the global generator, which dropout draws from, plays no part
    other = SlicedOptimizer(groups_of(torch.bfloat16), "adamw")
    other.param_groups[0]["params"][0].grad = torch.ones(70, 80, dtype=torch.bfloat16)
    state = torch.get_rng_state()
    other.step()
    assert torch.equal(torch.get_rng_state(), state)
