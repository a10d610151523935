"""The LM head fused with the log-softmax: log-probs of given next tokens, without ever holding all the logits.

Legend: M scored positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpo_cli.errors import ModelError
from dpo_cli.modeling.sizes.footprint import CPU_CHUNK_LOGITS, chunk_logits_of


@dataclass(frozen=True)
class LowRank:
    """An adapter on the head: it adds factor * dropout(hidden) @ down.T @ up.T to the logits."""

    down: Tensor
    """(R, D), R the rank."""
    up: Tensor
    """(V, R)."""
    factor: float
    dropout: nn.Module


@dataclass(frozen=True)
class Head:
    """The last projection of a causal LM: logits = softcap(scale * (hidden @ weight.T + bias))."""

    weight: Tensor
    """(V, D)."""
    bias: Tensor | None
    """(V,)."""
    scale: float = 1.0
    softcap: float | None = None
    low_rank: LowRank | None = None


def head_of(model: PreTrainedModel) -> Head:
    """Return the model's head with what its config says of logit scale and soft-cap.

    Raises:
        ModelError: the output layer is not a linear projection.
    """
    linear, low_rank = _unwrapped(model.get_output_embeddings())
    if not isinstance(linear, nn.Linear):
        kind = type(linear).__name__
        raise ModelError.of(
            "model.name",
            f"the output layer is a {kind}, not a linear projection",
            "use a causal LM with a linear head",
        )
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(linear.weight, linear.bias, scale, softcap, low_rank)


def _unwrapped(layer: Any) -> tuple[Any, LowRank | None]:
    """Return the projection that an adapter wraps: its trained copy, or the frozen one and what the adapter adds."""
    if isinstance(layer, nn.Linear) or not type(layer).__module__.startswith("peft."):
        return layer, None
    from peft.tuners.lora import Linear as LoraLinear
    from peft.utils import ModulesToSaveWrapper

    if isinstance(layer, ModulesToSaveWrapper):
        return layer.modules_to_save[layer.active_adapters[0]], None
    if not isinstance(layer, LoraLinear) or any(layer.use_dora.values()):
        return layer, None
    if layer.disable_adapters:
        return layer.base_layer, None
    (name,) = layer.active_adapters
    down, up = (cast("nn.Linear", side[name]).weight for side in (layer.lora_A, layer.lora_B))
    return layer.base_layer, LowRank(down, up, layer.scaling[name], layer.lora_dropout[name])


def token_log_probs(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Return log p(target) at each position, (M,) fp32 nats, with exact fp32 logits.

    Forward keeps nothing of the logits; backward recomputes them chunk by chunk. Under autocast CUDA multiplies bf16 inputs
    into fp32 logits; a CPU cannot, and rounding logits to bf16 would bias training, so it multiplies in fp32 there and takes
    bf16 only for the two gradient products.

    Args:
        hidden: (M, D), any float type.
        head: the projection.
        targets: token ids, (M,) int64.
    """
    return _log_probs(hidden, head, targets, squares=False)[0]


def token_log_probs_and_squares(hidden: Tensor, head: Head, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return `token_log_probs`, and log sum_v p(v)^2 at each position, (M,) fp32, without gradient: how certain the model is there."""
    return _log_probs(hidden, head, targets, squares=True)


def _log_probs(hidden: Tensor, head: Head, targets: Tensor, squares: bool) -> tuple[Tensor, Tensor]:
    kind = hidden.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        weight = head.weight
        if head.low_rank is not None:
            hidden, weight = _widened(hidden, weight, head.low_rank)
        return _TokenLogProbs.apply(
            hidden, weight, head.bias, targets, head.scale, head.softcap, low, squares
        )


def _widened(hidden: Tensor, weight: Tensor, low_rank: LowRank) -> tuple[Tensor, Tensor]:
    """Return hidden states (M, D + R) and weight (V, D + R) whose product is that of the projection and its adapter together."""
    down = low_rank.dropout(hidden.to(low_rank.down.dtype)) @ low_rank.down.T * low_rank.factor
    kept = weight.dtype if weight.is_cuda else low_rank.up.dtype
    return (
        torch.cat([hidden, down.to(hidden.dtype)], 1),
        torch.cat([weight.to(kept), low_rank.up.to(kept)], 1),
    )


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        softcap: float | None,
        low: torch.dtype,
        squares: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.scale, ctx.softcap, ctx.low = scale, softcap, low
        out = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        certainty = torch.empty(len(targets) if squares else 0, dtype=torch.float32, device=hidden.device)
        left = _left(weight, low)
        for rows in _chunks(len(targets), weight):
            log_p = torch.log_softmax(_logits(hidden[rows], left, bias, scale, softcap), 1)
            out[rows] = log_p.gather(1, targets[rows, None])[:, 0]
            if squares:
                certainty[rows] = torch.logsumexp(2 * log_p, 1)
        ctx.mark_non_differentiable(certainty)
        return out, certainty

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        left, low_weight = _left(weight, ctx.low), weight.to(ctx.low)
        for rows in _chunks(len(targets), weight):
            logits = _logits(hidden[rows], left, bias, ctx.scale, ctx.softcap)
            slope = _logit_gradient(logits, targets[rows], grads[0][rows], ctx.scale, ctx.softcap)
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(ctx.low)
            if grad_hidden is not None:
                grad_hidden[rows] = (slope @ low_weight).to(hidden.dtype)
            if grad_weight is not None:
                _accumulate(grad_weight, slope, hidden[rows].to(ctx.low))
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            *[None] * 5,
        )


def _chunks(n_rows: int, weight: Tensor) -> list[slice]:
    """Cut rows into chunks whose size depends on the vocabulary and the card alone: a resumed run cuts, and so rounds, the same way."""
    size = max(1, chunk_logits(weight.device) // len(weight))
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


@functools.cache
def chunk_logits(device: torch.device) -> int:
    """Return how many logits are held at once on a device."""
    if device.type != "cuda":
        return CPU_CHUNK_LOGITS
    return chunk_logits_of(torch.cuda.get_device_properties(device).total_memory)


def _left(weight: Tensor, low: torch.dtype) -> Tensor:
    """Return the weight in the type that the logits are multiplied in."""
    return weight.to(low) if weight.device.type == "cuda" else weight.float()


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """Return fp32 logits of a chunk, (rows, V)."""
    is_fp32 = weight.dtype == torch.float32
    hidden = hidden.to(weight.dtype)
    logits = hidden @ weight.T if is_fp32 else torch.mm(hidden, weight.T, out_dtype=torch.float32)
    if bias is not None:
        logits += bias.float()
    if scale != 1.0:
        logits *= scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _logit_gradient(
    logits: Tensor, targets: Tensor, grad: Tensor, scale: float, softcap: float | None
) -> Tensor:
    """Return d(sum grad * log p) / d(hidden @ weight.T + bias): grad * (onehot - softmax), through soft-cap and scale."""
    slope = torch.softmax(logits, 1).mul_(-grad[:, None])
    slope.scatter_add_(1, targets[:, None], grad[:, None])
    if softcap is not None:
        slope *= 1 - (logits / softcap) ** 2
    return slope if scale == 1.0 else slope.mul_(scale)


def _accumulate(total: Tensor, slope: Tensor, hidden: Tensor) -> None:
    if slope.dtype == torch.float32:
        total.addmm_(slope.T, hidden)
    elif slope.is_cuda:  # adds in fp32 inside the product, where a CPU rounds the product to bf16 first
        torch.addmm(total, slope.T, hidden, out_dtype=torch.float32, out=total)
    else:
        total += slope.T @ hidden
