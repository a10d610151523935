"""The seam to vLLM, for those who have it. Written to its documented interface and not run: it needs a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dpo_cli.engine.generate import Ask
from dpo_cli.errors import ModelError
from dpo_cli.modeling.hub import Start
from dpo_cli.packages import is_installed


def vllm_generate(
    start: Start,
    asks: Sequence[Ask],
    stops: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    precision: str,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield what `generate` gives, all at once; the same seed gives other answers than there.

    Raises:
        ModelError: no vLLM, no CUDA GPU, or an adapter.
    """
    fix = "--engine transformers"
    if not is_installed("vllm") or not torch.cuda.is_available():
        raise ModelError.of(
            "--engine", "vllm needs its package and a CUDA GPU", f"pip install vllm, or {fix}"
        )
    if start.adapter is not None:
        raise ModelError.of("--engine", "vllm is given whole models here", f"dpo export --to vllm, or {fix}")
    vllm: Any = importlib.import_module("vllm")
    free, total = torch.cuda.mem_get_info()
    engine = vllm.LLM(
        model=str(start.base),
        dtype="float32" if precision == "fp32" else "bfloat16",
        skip_tokenizer_init=True,
        generation_config="vllm",  # nothing of the model's own settings, as in `generate`
        gpu_memory_utilization=0.9 * free / total,  # the scorer's model is there already
    )
    settings = [
        vllm.SamplingParams(
            temperature=temperature,
            seed=ask.seed,
            max_tokens=max_new_tokens,
            stop_token_ids=list(stops),
            detokenize=False,
        )
        for ask in asks
    ]
    done = engine.generate([{"prompt_token_ids": list(ask.prompt)} for ask in asks], settings)
    yield [(at, _ids(each.outputs[0], stops)) for at, each in enumerate(done)]


def _ids(said: Any, stops: Sequence[int]) -> list[int]:
    """Return an answer's token ids, with the stop token, which some versions leave out."""
    ids = list(said.token_ids)
    if said.finish_reason == "stop" and (not ids or ids[-1] not in stops):
        ids.append(stops[0])
    return ids
