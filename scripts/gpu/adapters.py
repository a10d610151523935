"""An adapter on an 8B shape as `dpo train` opens it, base in bf16 and in 4 bits: one step, time and peak memory."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import torch

from dpo_cli.modeling.adapters import attach
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.load import load_model
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Adapter
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.state import Run
from scripts.gpu.blocks import KINDS
from scripts.gpu.context import Context, Unavailable
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs


def run(here: Context) -> None:
    """Write the base once, then open it as LoRA does and, where bitsandbytes is there, as QLoRA does."""
    here.need("peft")
    folder = here.model
    if folder is None:
        folder = here.folder / "base"
        began = time.perf_counter()
        dtype = torch.bfloat16
        random_llama("8B", here.tiny, here.device, dtype).save_pretrained(folder)
        here.figure("seconds to write the base", round(time.perf_counter() - began, 1))
        if here.is_cuda:
            torch.cuda.empty_cache()
    _step(here, "LoRA", folder, None)
    if here.is_cuda:
        torch.cuda.empty_cache()
    try:
        here.need_cuda()
        here.need("bitsandbytes")
        _step(here, "QLoRA", folder, "nf4")
    except Unavailable as missing:
        here.figure("QLoRA", str(missing))


def _step(here: Context, name: str, folder: Path, quantize: str | None) -> None:
    began = time.perf_counter()
    dtype = torch.bfloat16 if here.is_cuda else torch.float32
    model = load_model(folder, 3, dtype=dtype, quantize=quantize)
    attach(model, Adapter(rank=16), seed=0)
    scorer = Scorer(model.to(here.device) if quantize is None else model)  # type: ignore[arg-type]
    here.figure(f"{name}: seconds to load", round(time.perf_counter() - began, 1))
    n_row, batch = (96, 2) if here.tiny else (1024, 4)
    groups = random_pairs(batch, n_row, 0.5, model.config.vocab_size)
    a = a_run(here.folder, scorer, groups, batch_size=batch, token_budget=128 if here.tiny else 2048)
    for kind, (is_compiled, is_checkpointed) in KINDS.items():
        if is_compiled and (not here.is_cuda or quantize is not None):
            continue
        set_blocks(model, is_compiled=is_compiled, is_checkpointed=is_checkpointed)
        _one(here, a)
        here.reset_peak()
        seconds = median(here.seconds_of(lambda: _one(here, a)) for _ in range(3))
        if here.is_cuda:
            here.figure(f"{name} {kind}: peak GiB", here.peak_gib())
        here.figure(f"{name} {kind}: pairs/s", round(batch / seconds, 2))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    bad = sum(not bool(torch.isfinite(weight).all()) for weight in trained)
    here.check(f"{name}: trained tensors that are not finite", float(bad), 0.0)


def _one(here: Context, a: Run) -> None:
    optimizer_step(a)
    a.step += 1
    here.synchronize()
