"""Decoder blocks compiled and checkpointed: time, peak memory and gradients beside the plain ones, by how many tokens are computed at once."""

from __future__ import annotations

import itertools
import time
from statistics import median

import torch

from dpo_cli.modeling import head
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.head import Head, token_log_probs
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.state import Run
from scripts.gpu.context import Context
from scripts.gpu.kernels import autocast
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs

KINDS = {
    "plain": (False, False),
    "compiled": (True, False),
    "checkpointed": (False, True),
    "compiled, checkpointed": (True, True),
}
"""Whether blocks are compiled, and whether they are checkpointed."""
GRADIENT = 0.05
"""Relative difference of the gradient that bf16 may make: a compiled block rounds fewer of its intermediate values."""
ROUNDS = 4


def run(here: Context) -> None:
    """Measure a 135M and a 1B shape; on a CPU checkpointing alone, as there the packed kernel cannot be compiled."""
    for size, n_row, batch, budget in (("135M", 512, 16, 8192), ("1B", 2048, 8, 16_384)):
        if here.tiny:
            n_row, batch, budget = 64, 4, 128
        _measure(here, size, n_row, batch, budget)
    _budgets(here)
    _chunks(here)


def _measure(here: Context, size: str, n_row: int, batch: int, budget: int) -> None:
    model = random_llama(size, here.tiny, here.device)
    groups = random_pairs(batch, n_row, 0.5, model.config.vocab_size, jitter=0.5)
    a = a_run(here.folder, Scorer(model), groups, batch_size=batch, token_budget=budget)
    kinds = {name: kind for name, kind in KINDS.items() if here.is_cuda or not kind[0]}
    if size == "135M":
        _compare(here, a.scorer, kinds, budget)
    for name, (is_compiled, is_checkpointed) in kinds.items():
        set_blocks(model, is_compiled=is_compiled, is_checkpointed=is_checkpointed)
        _step(a)
        here.reset_peak()
        times = [here.seconds_of(lambda: _step(a)) for _ in range(ROUNDS)]
        here.figure(f"{size} {name}: ms a step", round(1000 * median(times), 1))
        if here.is_cuda:
            here.figure(f"{size} {name}: peak GiB", here.peak_gib())
    set_blocks(model)


def _compare(here: Context, scorer: Scorer, kinds: dict[str, tuple[bool, bool]], budget: int) -> None:
    """Check each kind's gradient against that of the plain blocks; on a CPU checkpointing changes no bit."""
    truth = None
    for name, (is_compiled, is_checkpointed) in kinds.items():
        set_blocks(scorer.model, is_compiled=is_compiled, is_checkpointed=is_checkpointed)
        began = time.perf_counter()
        found = _gradient(here, scorer, budget)
        if name == "compiled":
            here.figure(
                "135M: seconds of the first forward and backward, compiling",
                round(time.perf_counter() - began, 1),
            )
        truth = found if truth is None else truth
        relative = ((found - truth).norm() / truth.norm()).item()
        limit = GRADIENT if here.is_cuda else 0.0
        here.check(f"135M {name}: gradient, relative to plain", relative, limit)


def _gradient(here: Context, scorer: Scorer, n_tokens: int) -> torch.Tensor:
    n_row = 64 if here.tiny else 512
    groups = random_pairs(max(1, n_tokens // (2 * n_row)), n_row, 0.5, scorer.config.vocab_size)
    scorer.zero_grad(set_to_none=True)
    scorer.train()
    with autocast(here.device, "bf16" if here.is_cuda else "fp32"):
        out = score(scorer, scorer.layout(groups))
    out.total.sum().backward()
    gradient = torch.cat([weight.grad.flatten() for weight in scorer.parameters() if weight.grad is not None])
    scorer.zero_grad(set_to_none=True)
    return gradient


def _budgets(here: Context) -> None:
    """Time the same step cut into micro-batches of fewer tokens: what keeps the device busy."""
    model = random_llama("1B", here.tiny, here.device)
    n_row, batch = (64, 4) if here.tiny else (1024, 16)
    groups = random_pairs(batch, n_row, 0.5, model.config.vocab_size)
    kinds = (False, True) if here.is_cuda else (False,)
    for is_compiled, budget in itertools.product(kinds, (2048, 4096, 8192, 16_384)):
        set_blocks(model, is_compiled=is_compiled)
        a = a_run(here.folder, Scorer(model), groups, batch_size=batch, token_budget=budget)
        _step(a)
        seconds = median(here.seconds_of(lambda a=a: _step(a)) for _ in range(3))  # type: ignore[misc]
        rate = sum(group.n_row_tokens for group in groups) / seconds
        name = "compiled" if is_compiled else "plain"
        here.figure(f"1B {name}, {budget:,} tokens at once: row tokens/s", round(rate))


def _chunks(here: Context) -> None:
    """Time the fused head by the logits that a chunk holds."""
    positions, hidden_size, vocabulary = (64, 32, 500) if here.tiny else (8192, 2048, 128_256)
    hidden = torch.randn(positions, hidden_size, device=here.device, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, device=here.device, requires_grad=True)
    targets = torch.randint(vocabulary, (positions,), device=here.device)

    def both() -> None:
        with autocast(here.device, "bf16" if here.is_cuda else "fp32"):
            token_log_probs(hidden, Head(weight, None), targets).sum().backward()

    usual = head.chunk_logits
    try:
        for million in (16, 64, 256, 1024):
            head.chunk_logits = lambda _device, n=million * 2**20: n
            both()
            here.reset_peak()
            seconds = median(here.seconds_of(both) for _ in range(3))
            here.figure(f"head, chunks of {million} Mi logits: ms", round(1000 * seconds, 1))
            if here.is_cuda:
                here.figure(f"head, chunks of {million} Mi logits: peak GiB", here.peak_gib())
    finally:
        head.chunk_logits = usual
    here.figure("head, the chunk that is taken here, Mi logits", usual(here.device) // 2**20)


def _step(a: Run) -> None:
    optimizer_step(a)
    a.step += 1
