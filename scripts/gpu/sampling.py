"""Answers sampled by transformers and, where it is there, by vLLM: the same prompts, tokens/s."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from dpo_cli.engine.generate import Ask, generate
from dpo_cli.engine.vllm import vllm_generate
from dpo_cli.modeling.hub import model_start
from dpo_cli.modeling.load import load_model
from scripts.gpu.context import Context, Unavailable
from scripts.gpu.shapes import fields_of
from tests.fakes import write_model

STOPS = [2]


def run(here: Context) -> None:
    """Sample from a 135M shape with each engine."""
    n, new_tokens = (4, 8) if here.tiny else (256, 128)
    folder = here.model or write_model(here.folder / "model", **fields_of("135M", here.tiny))
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, 200, (24,), generator=generator).tolist() for _ in range(n)]
    asks = [Ask(prompt, seed) for seed, prompt in enumerate(prompts)]
    _with_transformers(here, folder, asks, new_tokens)
    try:
        here.need_cuda()
        here.need("vllm")
    except Unavailable as missing:
        here.figure("vLLM", str(missing))
        return
    torch.cuda.empty_cache()
    start = model_start(str(folder), None, weights=True)
    began = time.perf_counter()
    answers = list(vllm_generate(start, asks, STOPS, 1.0, new_tokens, "bf16"))
    here.figure("vLLM: tokens/s, start included", round(_tokens(answers) / (time.perf_counter() - began)))


def _with_transformers(here: Context, folder: Path, asks: list[Ask], new_tokens: int) -> None:
    model = load_model(folder, 3).to(here.device)  # type: ignore[arg-type]
    model.config.use_cache = True
    began = time.perf_counter()
    answers = list(
        generate(model, asks, STOPS, temperature=1.0, max_new_tokens=new_tokens, max_tokens=32_768)
    )
    here.figure("transformers: tokens/s", round(_tokens(answers) / (time.perf_counter() - began)))


def _tokens(answers: list[list[tuple[int, list[int]]]]) -> int:
    return sum(len(ids) for batch in answers for _, ids in batch)
