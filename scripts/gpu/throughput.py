"""Tokens/s, share of the card's measured bf16 peak and peak memory of a 1B shape on 2,048-token pairs; packed against padded rows."""

from __future__ import annotations

from statistics import median

import torch
from transformers import LlamaForCausalLM

from dpo_cli.modeling.logprobs import Path, Scorer
from dpo_cli.train.build import lengths_of
from dpo_cli.train.loop import Run, optimizer_step
from scripts.gpu.context import Context
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs, step_flops

SHARES = (0.2, 0.7)
PATHS: tuple[Path, ...] = ("packed", "padded")
ROUNDS = 3


def run(here: Context) -> None:
    """Time steps on both paths in turn, for a small and a large share of the prompt."""
    peak = _peak_tflops(here)
    here.figure("bf16 matrix product, TFLOP/s", round(peak, 4))
    model = random_llama("1B", here.tiny, here.device)
    for share in SHARES:
        _time(here, model, share, peak)


def _time(here: Context, model: LlamaForCausalLM, share: float, peak: float) -> None:
    n_row, batch = (128, 4) if here.tiny else (2048, 8)
    budget = 256 if here.tiny else 16_384
    groups = random_pairs(batch, n_row, share, model.config.vocab_size)
    a = a_run(here.folder, Scorer(model), groups, batch_size=batch, token_budget=budget)
    times: dict[Path, list[float]] = {"packed": [], "padded": []}
    peaks: dict[Path, float | None] = {}
    for number in range(ROUNDS + 1):
        for path in PATHS:
            a.scorer.take(path)
            a.lengths = lengths_of(groups, path)
            here.reset_peak()
            seconds = here.seconds_of(lambda: _step(a))
            if number:  # the first round warms up
                times[path].append(seconds)
                peaks[path] = here.peak_gib()
    rows, packed = sum(group.n_row_tokens for group in groups), median(times["packed"])
    ratios = [slow / fast for fast, slow in zip(times["packed"], times["padded"], strict=True)]
    name = f"prompt share {share:g}"
    here.figure(f"{name}: row tokens/s", round(rows / packed))
    if here.is_cuda:
        flops = step_flops(model, groups, is_shared=True)
        here.figure(f"{name}: MFU", round(flops / packed / peak / 1e12, 3))
        here.figure(f"{name}: peak GiB packed, padded", [peaks["packed"], peaks["padded"]])
    here.figure(
        f"{name}: packed, times padded's speed",
        [round(each, 2) for each in (median(ratios), min(ratios), max(ratios))],
    )


def _step(a: Run) -> None:
    optimizer_step(a)
    a.step += 1


def _peak_tflops(here: Context) -> float:
    """Return what one large bf16 matrix product reaches, on random values: zeros run faster than real data."""
    n = 256 if here.tiny else 8192
    left, right = (torch.randn(n, n, device=here.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds = [here.seconds_of(lambda: left @ right) for _ in range(10)]
    return 2 * n**3 / median(seconds) / 1e12
