"""The memory model: against what autograd keeps of traced layers, and against peaks measured on a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.adapters import attach
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.scorer import Kernel, Path, Scorer, score
from dpo_cli.modeling.sizes.footprint import (
    BUSY_TOKENS,
    MAX_TOKENS,
    Setup,
    bytes_per_token,
    chunk_logits_of,
    fitting_tokens,
    needs_checkpointing,
    terms,
    trained_parameters,
)
from dpo_cli.modeling.sizes.shape import KNOWN, Shape, shape_by
from dpo_cli.recipe.schema import Adapter
from scripts.gpu.shapes import fields_of, random_pairs

GIB = 2**30
TOLERANCE = 0.1
PEAK_TOLERANCE = 0.05
SIZES: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
GPT2: dict[str, Any] = {
    "vocab_size": 1000,
    "n_embd": 256,
    "n_head": 4,
    "n_positions": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
CONFIGS: dict[str, Callable[[int], hf.PreTrainedConfig]] = {
    "llama": lambda n: hf.LlamaConfig(**SIZES, num_hidden_layers=n),
    "qwen3": lambda n: hf.Qwen3Config(**SIZES, num_hidden_layers=n, head_dim=128),
    "gemma": lambda n: hf.GemmaConfig(**SIZES, num_hidden_layers=n, head_dim=128),
    "gemma2": lambda n: hf.Gemma2Config(
        **SIZES, num_hidden_layers=n, head_dim=64, attn_logit_softcapping=None
    ),
    "gemma3": lambda n: hf.Gemma3TextConfig(**SIZES, num_hidden_layers=n, head_dim=64),
    "gpt2": lambda n: hf.GPT2Config(**GPT2, n_layer=n),
    "llama, 8B": lambda n: hf.LlamaConfig(**{**fields_of("8B", tiny=False), "num_hidden_layers": n}),
}


def kept(
    scorer: Scorer, n_row: int, precision: str, mode: Callable[[], Any] = nullcontext
) -> tuple[int, int]:
    """Return the bytes that a forward keeps for backward beside the weights, and the tokens it computes."""
    weights = {weight.untyped_storage()._cdata for weight in scorer.parameters()}
    alive: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            alive[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        row = scorer.layout(random_pairs(1, n_row, 0.5, 1000))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            score(scorer.train(), row)
        return sum(tensor.untyped_storage().nbytes() for tensor in alive.values()), row.n_computed


def per_token_and_layer(bytes_of: Callable[[int, int], tuple[int, int]]) -> float:
    """Return what a second layer keeps a further token: what is kept once, such as weights in bf16, cancels out."""
    found = {(n, n_row): bytes_of(n, n_row) for n in (1, 2) for n_row in (256, 512)}
    (more, n_more), (less, n_less) = [
        (found[2, n_row][0] - found[1, n_row][0], found[1, n_row][1]) for n_row in (512, 256)
    ]
    return (more - less) / (n_more - n_less)


def of_layer(shape: Shape, setup: Setup) -> float:
    """Return the formula's bytes a token and layer."""
    return (bytes_per_token(shape, setup) - 12 * shape.hidden) / shape.layers


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("precision", "weight_bytes"), [("fp32", 4), ("bf16", 4), ("bf16", 2)])
@pytest.mark.parametrize(
    ("name", "path", "is_checkpointed"),
    [
        *((name, "packed", False) for name in CONFIGS),
        ("llama", "packed", True),
        ("qwen3", "packed", True),
    ],
)
def test_a_layer_keeps_what_the_formula_says(
    name: str, path: Path, is_checkpointed: bool, precision: str, weight_bytes: int
) -> None:
    def traced(n_layers: int, n_row: int) -> tuple[int, int]:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            dtype = torch.bfloat16 if weight_bytes == 2 else torch.float32
            model = hf.AutoModelForCausalLM.from_config(CONFIGS[name](n_layers), dtype=dtype)
        set_blocks(model, is_checkpointed=is_checkpointed)
        return kept(Scorer(model, path, "varlen"), n_row, precision, lambda: fake)

    shape = shape_by(CONFIGS[name](1).to_dict())
    setup = Setup(precision, weight_bytes=weight_bytes, is_checkpointed=is_checkpointed)
    expected = of_layer(shape, setup)

    assert per_token_and_layer(traced) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_a_layer_with_an_adapter_keeps_what_the_formula_says(name: str, precision: str) -> None:
    kernel: Kernel = "loop"

    def traced(n_layers: int, n_row: int) -> tuple[int, int]:
        model = hf.AutoModelForCausalLM.from_config(CONFIGS[name](n_layers))
        attach(model.bfloat16() if precision == "bf16" else model, Adapter(rank=8), seed=0)
        return kept(Scorer(model, "packed", kernel), n_row, precision)

    shape = shape_by(CONFIGS[name](1).to_dict())
    expected = of_layer(shape, Setup(precision, adapter_rank=8))

    assert per_token_and_layer(traced) == pytest.approx(expected, rel=TOLERANCE)


H200 = chunk_logits_of(int(139.8 * GIB))
SMALL = 16 * 2**20
"""Logits of a chunk before chunks grew with the card."""
LOW: dict[str, Any] = {"weight_bytes": 2, "moment_bytes": 4}
KINDS = [(False, False), (True, False), (False, True), (True, True)]
PEAKS = [
    # The part "blocks" of docs/gpu_check.json, and the same before the head's chunks grew.
    *(
        (name, (tokens, scored), {"is_compiled": c, "is_checkpointed": k, "chunk_logits": chunk}, peak)
        for name, tokens, scored, chunk, peaks in [
            ("llama321b", 10_064, 5968, H200, (44.83, 37.45, 25.57, 24.66)),
            ("llama321b", 10_064, 5968, SMALL, (42.7, 35.3, 22.5, 22.5)),
            ("smollm2135m", 5018, 2970, H200, (8.29, 6.57, 4.08, 4.08)),
            ("smollm2135m", 5018, 2970, SMALL, (7.09, 5.36, 2.95, 2.87)),
        ]
        for (c, k), peak in zip(KINDS, peaks, strict=True)
    ),
    # The part "throughput": 20% of a row is prompt, so that the prompt's keys are gathered less often.
    ("llama321b", (14_744, 13_104), {"keys_each": 10 / 9, "chunk_logits": H200}, 53.9),
    ("llama321b", (14_744, 13_104), {"keys_each": 10 / 9, "is_compiled": True, "chunk_logits": H200}, 43.09),
    ("llama321b", (16_384, 13_104), {"is_packed": False, "chunk_logits": H200}, 56.98),
    # The part "adapters".
    ("llama318b", (1536, 1024), {"adapter_rank": 16, "chunk_logits": SMALL}, 25.63),
    ("llama318b", (1536, 1024), {"adapter_rank": 16, "is_quantized": True, "chunk_logits": SMALL}, 14.49),
    ("llama318b", (1536, 1024), {"adapter_rank": 16, "chunk_logits": H200}, 26.98),
    ("llama318b", (1536, 1024), {"adapter_rank": 16, "is_checkpointed": True, "chunk_logits": H200}, 17.29),
    # The part "memory": 8B whole, in bf16.
    *(
        ("llama318b", (6144, 4096), {"is_checkpointed": True, "chunk_logits": H200, **LOW, **more}, peak)
        for more, peak in [
            ({}, 66.29),
            ({"is_offloaded": True}, 64.79),
            ({"moment_bytes": moment_bytes_of("adamw_8bit", 2)}, 51.57),
        ]
    ),
]
"""(shape, (tokens, scored tokens), setup, GiB that torch had allocated at its peak) on an H200 in bf16."""


@pytest.mark.parametrize(("name", "tokens", "setup", "peak"), PEAKS)
def test_the_sum_is_what_a_gpu_had_allocated(
    name: str, tokens: tuple[int, int], setup: dict[str, Any], peak: float
) -> None:
    found = terms(KNOWN[name], Setup("bf16", **setup), *tokens)

    assert found.allocated / GIB == pytest.approx(peak, rel=PEAK_TOLERANCE)


def test_state_is_sixteen_bytes_a_parameter_and_an_adapter_has_little() -> None:
    shape = KNOWN["llama318b"]
    full, adapter = terms(shape, Setup("bf16"), 0), terms(shape, Setup("bf16", adapter_rank=16), 0)

    assert full.state == 16 * shape.parameters
    assert trained_parameters(shape, 16) == 41_943_040  # what peft prints of rank 16 on all linear layers
    assert adapter.state == 2 * shape.parameters + 16 * 41_943_040
    live = terms(shape, Setup("bf16", has_live_reference=True), 0)
    assert live.total - full.total == live.reference == 4 * shape.parameters
    assert full.total == sum(vars(full).values()) == full.allocated + full.overhead


def test_as_many_tokens_fit_as_the_sum_allows() -> None:
    shape, setup = KNOWN["llama321b"], Setup("bf16", chunk_logits=chunk_logits_of(40 * GIB))
    memory = 40 * GIB

    fitting = fitting_tokens(shape, setup, memory)

    assert 0 < fitting < MAX_TOKENS
    assert terms(shape, setup, fitting).total <= 0.95 * memory < terms(shape, setup, fitting + 1).total
    assert fitting_tokens(shape, setup, 16 * GIB) == 0
    assert fitting_tokens(shape, setup, 10**15) == MAX_TOKENS
    assert fitting_tokens(shape, setup, memory, with_overhead=False) > fitting


@pytest.mark.parametrize(
    ("fitting", "budget", "is_needed"),
    [
        (BUSY_TOKENS, "auto", False),
        (BUSY_TOKENS - 1, "auto", True),
        (600, 512, False),
        (500, 512, True),
    ],
)
def test_checkpointing_is_needed_below_a_busy_budget(
    fitting: int, budget: str | int, is_needed: bool
) -> None:
    assert needs_checkpointing(fitting, budget) is is_needed


def test_it_is_computed_without_torch() -> None:
    code = "import sys; from dpo_cli.modeling.sizes import footprint, shape; shape.named_shape('x/llama-7b'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
