"""Models of well-known shapes with random weights, token groups of stated lengths, and the floating-point operations of a step.

Legend: T tokens of a row, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dpo_cli.types import TokenGroup

_COMMON: dict[str, Any] = {"max_position_embeddings": 8192, "rope_theta": 500_000.0}
SHAPES: dict[str, dict[str, Any]] = {
    # SmolLM2-135M, Llama 3.2 1B and Llama 3.1 8B by their published configurations.
    "135M": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "1B": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8B": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def fields_of(name: str, tiny: bool) -> dict[str, Any]:
    """Return the configuration fields of a shape, or of the tiny one in its place."""
    return {**_COMMON, **(TINY if tiny else SHAPES[name])}


def random_llama(
    name: str, tiny: bool, device: torch.device, dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """Return a Llama with random weights, made on the device itself: 8B parameters need no copy in host memory."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(LlamaConfig(**fields_of(name, tiny)))
    finally:
        torch.set_default_dtype(before)
    model.config.use_cache = False
    return model.eval()


def random_pairs(
    n: int, n_row: int, prompt_share: float, vocabulary: int, jitter: float = 0.0
) -> list[TokenGroup]:
    """Return pairs whose prompt with either answer has `n_row` tokens, `jitter` of them at random fewer in an answer."""
    rng = np.random.default_rng(0)
    n_prompt = max(1, round(n_row * prompt_share))
    groups = []
    for _ in range(n):
        lengths = [max(1, round((n_row - n_prompt) * (1 - jitter * rng.random()))) for _ in range(2)]
        ids = [rng.integers(3, vocabulary, length).astype(np.int32) for length in (n_prompt, *lengths)]
        groups.append(TokenGroup(ids[0], tuple(ids[1:]), tuple(np.ones(length, bool) for length in lengths)))
    return groups


def step_flops(model: LlamaForCausalLM, groups: Sequence[TokenGroup], is_shared: bool) -> float:
    """Return the operations of matrix products in a forward and backward pass over the groups, 6 per weight and token.

    Attention counts the score and value products of what a causal mask lets through; the head counts scored positions only. What a
    kernel computes twice (recomputed logits, scores in attention's backward) does not count: it is in no model's own work.

    Args:
        model: for its sizes.
        groups: of the step.
        is_shared: a prompt is computed once for its answers; otherwise once for each.
    """
    config = model.config
    hidden = config.hidden_size
    inner = config.intermediate_size
    head_dim = hidden // config.num_attention_heads
    kv = config.num_key_value_heads * head_dim
    per_layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    tokens, seen, scored = 0, 0.0, 0
    for group in groups:
        n_prompt = len(group.prompt)
        lengths = [len(ids) for ids in group.completions]
        prompts = 1 if is_shared else len(lengths)
        tokens += prompts * n_prompt + sum(lengths)
        seen += prompts * n_prompt**2 / 2 + sum(n * n_prompt + n * n / 2 for n in lengths)
        scored += sum(group.scored)
    layers = config.num_hidden_layers
    return (
        6.0 * layers * per_layer * tokens
        + 12.0 * layers * hidden * seen
        + 6.0 * hidden * config.vocab_size * scored
    )
