"""What saves memory: a whole 8B model and a LoRA in the room of smaller cards, the optimizers, and peaks beside what `dpo plan` predicts."""

from __future__ import annotations

import gc
from statistics import median
from typing import Any

import torch

from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.adapters import attach
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.head import chunk_logits
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.modeling.sizes.footprint import Setup, terms
from dpo_cli.modeling.sizes.shape import shape_by
from dpo_cli.packages import is_installed
from dpo_cli.recipe.schema import Adapter
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.state import Run
from scripts.gpu.context import Context
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs
from scripts.gpu.step import check_waits

ROUNDS = 3
TOLERANCE = 0.1
"""Of a measured peak, that the prediction may be off."""
GIB_OF_80_GB, GIB_OF_24_GB = 79.1, 23.5
"""What an 80 GB H100 and a 24 GB RTX 4090 report."""


def run(here: Context) -> None:
    """Train an 8B shape whole within 80 GB and as a LoRA within 24 GB, then a 1B shape with each optimizer."""
    _whole(here)
    _adapter(here)
    _optimizers(here)
    _unlimited(here)


def _whole(here: Context) -> None:
    _limit(here, GIB_OF_80_GB)
    model = random_llama("8B", here.tiny, here.device, torch.bfloat16)
    for optimizer, blocks in (
        ("adamw", {"is_checkpointed": True}),
        ("adamw", {"is_checkpointed": True, "is_offloaded": True}),
        ("adamw_8bit", {"is_checkpointed": True}),
    ):
        if optimizer.endswith("_8bit") and not is_installed("bitsandbytes"):
            continue
        set_blocks(model, **blocks)
        name = f"8B whole, bf16, {optimizer}, {'offloaded' if 'is_offloaded' in blocks else 'checkpointed'}"
        a = _run(here, model, optimizer, batch=8, n_row=1024, budget=8192)
        setup = Setup(
            "bf16",
            weight_bytes=2,
            moment_bytes=moment_bytes_of(optimizer, 2),
            chunk_logits=chunk_logits(here.device),
            **blocks,
        )
        _measure(here, name, a, setup)
        a.optimizer.state.clear()
        model.zero_grad(set_to_none=True)


def _adapter(here: Context) -> None:
    _limit(here, GIB_OF_24_GB)
    model = random_llama("8B", here.tiny, here.device, torch.bfloat16)
    attach(model, Adapter(rank=16), seed=0)
    set_blocks(model, is_checkpointed=True)
    a = _run(here, model, "adamw", batch=4, n_row=1024, budget=2048)
    setup = Setup("bf16", adapter_rank=16, is_checkpointed=True, chunk_logits=chunk_logits(here.device))
    _measure(here, "8B LoRA, checkpointed", a, setup)


def _optimizers(here: Context) -> None:
    """Time each optimizer's step on a 1B shape, and count what waits for the device."""
    _unlimited(here)
    kinds = [("adamw", torch.float32), ("adamw", torch.bfloat16), ("rmsprop", torch.float32)]
    if is_installed("bitsandbytes"):
        kinds += [("adamw_8bit", torch.float32), ("adamw_8bit", torch.bfloat16)]
    for optimizer, dtype in kinds:
        model = random_llama("1B", here.tiny, here.device, dtype)
        a = _run(here, model, optimizer, batch=8, n_row=1024, budget=8192)
        width = 2 if dtype == torch.bfloat16 else 4
        setup = Setup(
            "bf16",
            weight_bytes=width,
            moment_bytes=moment_bytes_of(optimizer, width),
            chunk_logits=chunk_logits(here.device),
        )
        name = f"1B, {optimizer}, weights in {'bf16' if width == 2 else 'fp32'}"
        _measure(here, name, a, setup)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        times = [here.seconds_of(a.optimizer.step) for _ in range(ROUNDS)]
        here.figure(f"{name}: ms of the update alone", round(1000 * median(times), 1))
        a.optimizer.zero_grad(set_to_none=True)
        if here.is_cuda:
            check_waits(here, a, name)
        del a, model


def _run(here: Context, model: Any, optimizer: str, *, batch: int, n_row: int, budget: int) -> Run:
    if here.tiny:
        batch, n_row, budget = 4, 64, 256
    groups = random_pairs(batch, n_row, 0.5, model.config.vocab_size)
    if here.is_cuda:
        torch.cuda.empty_cache()
    scorer = Scorer(model)
    return a_run(here.folder, scorer, groups, batch_size=batch, token_budget=budget, optimizer=optimizer)


def _measure(here: Context, name: str, a: Run, setup: Setup) -> None:
    """Report time and peak of a step, and the peak beside the prediction."""
    _step(a)  # the moments come into being
    here.reset_peak()
    seconds = median(here.seconds_of(lambda: _step(a)) for _ in range(ROUNDS))
    here.figure(f"{name}: ms a step", round(1000 * seconds, 1))
    if not here.is_cuda:
        return
    peak = here.peak_gib()
    assert peak is not None
    here.figure(f"{name}: peak GiB", peak)
    bins = a.traces[-1].bins
    rows = [a.scorer.layout([a.groups[member] for member in members]) for members in bins]
    largest = max(rows, key=lambda row: row.n_computed)
    shape = shape_by(a.scorer.config.to_dict(), a.scorer.model.num_parameters())
    predicted = terms(shape, setup, largest.n_computed, len(largest.targets)).allocated / 2**30
    here.figure(f"{name}: predicted GiB", round(predicted, 2))
    here.check(f"{name}: prediction off by", abs(predicted / peak - 1), TOLERANCE)


def _step(a: Run) -> None:
    optimizer_step(a)
    a.step += 1


def _limit(here: Context, gib: float) -> None:
    """Let torch allocate no more than a smaller card has."""
    if here.is_cuda:
        gc.collect()  # modules refer to themselves
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(here.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))


def _unlimited(here: Context) -> None:
    _limit(here, 10**6)
