"""Varlen and FlexAttention, windows and soft-caps, and the fused head: values and gradients against plain padded rows in fp32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, PretrainedConfig

from dpo_cli.modeling import head
from dpo_cli.modeling.attention import Kernel
from dpo_cli.modeling.exactness import BF16_MEAN, FP32_MAX
from dpo_cli.modeling.head import Head, token_log_probs
from dpo_cli.modeling.scorer import Path, Scorer, score
from dpo_cli.types import TokenGroup
from scripts.gpu.context import Context
from scripts.gpu.shapes import random_pairs

BF16_MAX = 5e-2
"""Largest difference of a token's log-prob in bf16, nats."""
GRADIENT = {"fp32": 1e-4, "bf16": 0.02}
"""Relative difference of the whole gradient from the padded fp32 one, above what padded rows of the same precision have."""
HEAD = {"fp32": 1e-4, "bf16": 2e-2}
WINDOW = 48

Read = tuple[torch.Tensor, torch.Tensor | None]
"""Per-token log-probs (M,) and the gradient of a mixed sum of the completions' (all weights, flattened), in fp32; None where there is none."""


def run(here: Context) -> None:
    """Check the head, then every kernel that this device can run, on three architectures and two precisions."""
    torch.backends.cuda.matmul.allow_tf32 = False
    for precision in ("fp32", "bf16"):
        _check_head(here, precision)
    groups = random_pairs(3, 96 if here.tiny else 400, 0.4, 211, jitter=0.7)
    kernels: dict[str, list[Kernel]] = {"fp32": ["loop", "flex"], "bf16": ["loop", "flex", "varlen"]}
    for name, config in _configs(here.tiny).items():
        torch.manual_seed(0)
        scorer = Scorer(AutoModelForCausalLM.from_config(config).float().to(here.device).eval())
        truth = _read(scorer, groups, "padded", "fp32", None)
        for precision, candidates in kernels.items():
            padded = truth if precision == "fp32" else _read(scorer, groups, "padded", precision, None)
            for kernel in candidates:
                if (kernel == "varlen" and not here.is_cuda) or (kernel != "loop" and "softcap" in name):
                    continue  # the kernel is CUDA's own; soft-caps take the loop
                _compare(
                    here, f"{name} {precision} {kernel}", scorer, groups, precision, kernel, truth, padded
                )
    if not here.is_cuda:
        here.figure("varlen", "needs CUDA")


def _configs(tiny: bool) -> dict[str, PretrainedConfig]:
    """Return small models with heads of 64: grouped queries, a window shorter than the rows, soft-caps with windows."""
    common: dict[str, Any] = {
        "vocab_size": 211,
        "hidden_size": 128 if tiny else 512,
        "intermediate_size": 256 if tiny else 1024,
        "num_hidden_layers": 2 if tiny else 4,
        "num_attention_heads": 2 if tiny else 8,
        "num_key_value_heads": 1 if tiny else 2,
        "max_position_embeddings": 2048,
    }
    return {
        "llama": LlamaConfig(**common),
        f"window {WINDOW}": MistralConfig(**common, sliding_window=WINDOW),
        "softcap": Gemma2Config(**common, head_dim=64, sliding_window=WINDOW),
    }


def _read(
    scorer: Scorer, groups: list[TokenGroup], path: Path, precision: str, kernel: Kernel | None
) -> Read:
    scorer.take(path)
    scorer.kernel = kernel
    scorer.zero_grad(set_to_none=True)
    device = scorer.model.device
    has_gradient = kernel != "flex" or device.type == "cuda"  # on a CPU FlexAttention has no backward
    with torch.set_grad_enabled(has_gradient), autocast(device, precision):
        found = score(scorer, scorer.layout(groups), per_token=True)
    assert found.per_token is not None
    if not has_gradient:
        return found.per_token, None
    mix = torch.linspace(-2, 3, len(found.total), device=device)
    (found.total * mix).sum().backward()
    gradients = [weight.grad.flatten().float() for weight in scorer.parameters() if weight.grad is not None]
    return found.per_token.detach(), torch.cat(gradients)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Open bf16 autocast, or nothing in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def _compare(
    here: Context,
    name: str,
    scorer: Scorer,
    groups: list[TokenGroup],
    precision: str,
    kernel: Kernel,
    truth: Read,
    padded: Read,
) -> None:
    values, gradient = _read(scorer, groups, "packed", precision, kernel)
    apart = (values - truth[0]).abs()
    if precision == "fp32":
        here.check(f"{name}: nats per token, largest", apart.max().item(), FP32_MAX)
    else:
        own = (padded[0] - truth[0]).abs().mean()
        here.check(f"{name}: nats per token, mean above padded", (apart.mean() - own).item(), BF16_MEAN)
        here.check(f"{name}: nats per token, largest", apart.max().item(), BF16_MAX)
    if gradient is None:
        return
    assert truth[1] is not None and padded[1] is not None
    size = truth[1].norm()
    own_gradient = ((padded[1] - truth[1]).norm() / size).item()
    relative = ((gradient - truth[1]).norm() / size).item()
    here.check(f"{name}: gradient, relative, above padded", relative - own_gradient, GRADIENT[precision])


def _check_head(here: Context, precision: str) -> None:
    """Compare the fused head with a plain log-softmax in float64: scaled, soft-capped, in several chunks."""
    positions, hidden_size, vocabulary = (40, 64, 997) if here.tiny else (3000, 1024, 32_003)
    torch.manual_seed(0)
    hidden = torch.randn(positions, hidden_size, device=here.device)
    weight = torch.randn(vocabulary, hidden_size, device=here.device) * hidden_size**-0.5
    targets = torch.randint(vocabulary, (positions,), device=here.device)
    if precision == "bf16":  # what the backbone hands over; rounding the inputs is not the head's error
        hidden, weight = hidden.bfloat16().float(), weight.bfloat16().float()
    mine = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    plain = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    usual, head.chunk_logits = head.chunk_logits, lambda _device: positions * vocabulary // 5
    with autocast(here.device, precision):
        read = token_log_probs(mine[0], Head(mine[1], None, scale=0.7, softcap=30.0), targets)
    logits = 30.0 * torch.tanh((plain[0] @ plain[1].T) * 0.7 / 30.0)
    exact = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    read.sum().backward()
    exact.sum().backward()
    head.chunk_logits = usual
    here.check(f"head {precision}: nats per token, largest", (read - exact).abs().max().item(), HEAD["fp32"])
    for what, got, want in zip(("hidden states", "weight"), mine, plain, strict=True):
        assert got.grad is not None and want.grad is not None
        relative = ((got.grad - want.grad).norm() / want.grad.norm()).item()
        here.check(f"head {precision}: gradient of the {what}, relative", relative, HEAD[precision])
