"""Tokens/s, share of the card's measured bf16 peak and peak memory of a 1B shape on 2,048-token pairs; packed, compiled and padded rows."""

from __future__ import annotations

from statistics import median

import torch

from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.scorer import Path, Scorer
from dpo_cli.train.choices import lengths_of
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.state import Run
from scripts.gpu.context import Context
from scripts.gpu.profiles import longest_kernels
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs, step_flops

SHARES = (0.2, 0.7)
KINDS: dict[str, tuple[Path, bool]] = {
    "packed": ("packed", False),
    "packed, compiled": ("packed", True),
    "padded": ("padded", False),
}
"""How rows are laid out, and whether blocks are compiled."""
ROUNDS = 3


def run(here: Context) -> None:
    """Time steps on both paths in turn, for a small and a large share of the prompt."""
    peak = _peak_tflops(here)
    here.figure("bf16 matrix product, TFLOP/s", round(peak, 4))
    scorer = Scorer(random_llama("1B", here.tiny, here.device))
    for share in SHARES:
        _time(here, scorer, share, peak)


def _time(here: Context, scorer: Scorer, share: float, peak: float) -> None:
    model = scorer.model
    n_row, batch = (128, 4) if here.tiny else (2048, 8)
    budget = 256 if here.tiny else 16_384
    groups = random_pairs(batch, n_row, share, model.config.vocab_size)
    a = a_run(here.folder, scorer, groups, batch_size=batch, token_budget=budget)
    kinds = {name: kind for name, kind in KINDS.items() if here.is_cuda or not kind[1]}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    peaks: dict[str, float | None] = {}
    for number in range(ROUNDS + 1):
        for name, (path, is_compiled) in kinds.items():
            a.scorer.take(path)
            a.lengths = lengths_of(groups, path)
            set_blocks(model, is_compiled=is_compiled)
            here.reset_peak()
            seconds = here.seconds_of(lambda: _step(a))
            if number:  # the first round warms up
                times[name].append(seconds)
                peaks[name] = here.peak_gib()
    rows, of_padded = sum(group.n_row_tokens for group in groups), times.pop("padded")
    for name, own in times.items():
        title = f"prompt share {share:g}, {name}"
        here.figure(f"{title}: row tokens/s", round(rows / median(own)))
        if here.is_cuda:
            flops = step_flops(model, groups, is_shared=True)
            here.figure(f"{title}: MFU", round(flops / median(own) / peak / 1e12, 3))
            here.figure(f"{title}: peak GiB", peaks[name])
        ratios = [slow / fast for fast, slow in zip(own, of_padded, strict=True)]
        here.figure(
            f"{title}: times padded's speed",
            [round(each, 2) for each in (median(ratios), min(ratios), max(ratios))],
        )
    if here.is_cuda:
        here.figure(f"prompt share {share:g}, padded: peak GiB", peaks["padded"])
        _profile(here, a, share)
    set_blocks(model)


def _profile(here: Context, a: Run, share: float) -> None:
    """Report the longest kernels of a packed, compiled step."""
    a.scorer.take("packed")
    a.lengths = lengths_of(a.groups, "packed")
    set_blocks(a.scorer.model, is_compiled=True)
    here.figure(
        f"prompt share {share:g}: longest kernels, ms a step", longest_kernels(here, lambda: _step(a))
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
