"""Attention over the segments of a packed row, installed through transformers' public attention interface.

Legend: H heads, T tokens of the row, D head size. Kernels: `loop` (scaled_dot_product_attention per segment), `varlen`
(FlashAttention over variable lengths, CUDA bf16/fp16), `flex` (FlexAttention with a block mask). All give the same numbers. Soft-caps and
dropout take the loop: FlashAttention has no soft-cap, and FlexAttention's compiled one failed on a GPU (torch 2.11).
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from dpo_cli.modeling.blocks import raise_recompile_limit
from dpo_cli.modeling.layout import Segments

NAME = "dpo_packed"
"""The `attn_implementation` under which the kernels are registered."""

Kernel = Literal["loop", "varlen", "flex"]

_IGNORED = frozenset(
    {
        "position_ids",
        "use_cache",
        "cache_position",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "is_causal",
    }
)
"""Keyword arguments that say nothing of who attends to whom in a packed row."""


class UnknownAttention(Exception):
    """The model passes an attention argument that the packed kernels do not know; the padded path must be taken."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    kernel: Kernel = "loop",
    **unknown: Any,
) -> tuple[Tensor, None]:
    """Return the attention output of a packed row, (1, T, H, D).

    Args:
        module: the model's attention layer (unused).
        query: (1, H, T, D).
        key: (1, H_kv, T, D).
        value: (1, H_kv, T, D).
        attention_mask: None: see `install`.
        scaling: factor on the scores.
        dropout: probability of dropping a score, in training.
        sliding_window: a query sees only keys less than this many positions back.
        softcap: scores become softcap * tanh(scores / softcap).
        segments: who attends to whom.
        kernel: which kernel computes it.
        unknown: anything else that is not None or False.

    Raises:
        UnknownAttention: an argument that is not honoured here (for instance attention sinks, `s_aux`).
    """
    passed = sorted(
        name
        for name, given in unknown.items()
        if name not in _IGNORED and given is not None and given is not False
    )
    if passed or segments is None:
        raise UnknownAttention(f"attention argument {', '.join(passed) or 'segments missing'}")
    # Under autocast rotary embeddings come out in fp32 beside a bf16 value; the kernels want one type.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if kernel == "loop" or softcap is not None or dropout > 0.0:
        return _loop(query, key, value, segments, scaling, sliding_window, softcap, dropout), None
    attend = _varlen if kernel == "varlen" else _flex
    return attend(query, key, value, segments, scaling, sliding_window), None


def choose_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """Choose the kernel for the device: FlashAttention where it runs, FlexAttention on other GPUs, the loop on a CPU."""
    if device.type != "cuda":
        return "loop"
    flash = dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability(device) >= (8, 0)
    return "varlen" if flash else "flex"


def _loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    # One split, not a slice per segment: the backward of a slice fills a whole row with zeros first.
    keys, values = key.split(segments.pieces, 2), value.split(segments.pieces, 2)
    out = []
    for q, pieces in zip(query.split(segments.q_lengths, 2), segments.key_pieces, strict=True):
        k, v = (torch.cat([parts[piece] for piece in pieces], 2) for parts in (keys, values))
        mask = _mask(segments, q.shape[2], k.shape[2], window, q.device)
        if softcap is not None:
            out.append(_softcapped(q, k, v, mask, scaling, softcap, dropout))
            continue
        is_gqa = q.shape[1] != k.shape[1]
        out.append(
            F.scaled_dot_product_attention(
                q, k, v, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=is_gqa
            )
        )
    return torch.cat(out, 2).transpose(1, 2)


def _mask(segments: Segments, n_q: int, n_k: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return the lower-right causal mask, (n_q, n_k) bool; None where the plain causal flag says the same."""
    if n_q == n_k and (window is None or window >= n_k):
        return None
    name = (n_q, n_k, window)
    if name not in segments.masks:
        back = torch.arange(n_k - n_q, n_k, device=device)[:, None] - torch.arange(n_k, device=device)
        segments.masks[name] = (back >= 0) & (back < (window or n_k + 1))
    mask = segments.masks[name]
    assert isinstance(mask, Tensor)
    return mask


def _softcapped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
    dropout: float,
) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.transpose(2, 3)).float() * (scaling or q.shape[-1] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype)
    return F.dropout(weights, dropout) @ v


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    grouped: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] and _asks_for_gqa() else {}
    out = varlen_attn(
        q[0].transpose(0, 1).contiguous(),
        k[0].index_select(1, segments.key_index).transpose(0, 1).contiguous(),
        v[0].index_select(1, segments.key_index).transpose(0, 1).contiguous(),
        segments.cu_q,
        segments.cu_k,
        segments.max_q,
        segments.max_k,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )
    assert isinstance(out, Tensor)
    return out[None]


@functools.cache
def _asks_for_gqa() -> bool:
    """Return whether `varlen_attn` must be grouped of grouped queries; torch 2.11's takes fewer key heads as they are, by the same operator."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _flex(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    piece, prompt, n_tokens = segments.piece, segments.prompt, q.shape[2]

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Row order follows positions inside a prompt and inside a completion, so `key <= query` is causal in both.
        return (key <= query) & ((piece[key] == piece[query]) | (piece[key] == prompt[query]))

    name = ("flex", window)
    if name not in segments.masks:
        mask_mod = visible if window is None else _windowed(visible, segments, window)
        segments.masks[name] = create_block_mask(
            mask_mod, None, None, n_tokens, n_tokens, device=str(q.device)
        )
    attend: Any = _compiled_flex() if q.device.type == "cuda" else flex_attention
    with torch.autocast(
        q.device.type, enabled=False
    ):  # all of one type already; on or off would be a variant each
        out = attend(
            q,
            k,
            v,
            block_mask=segments.masks[name],
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    return out.transpose(1, 2)


def _windowed(visible: Any, segments: Segments, window: int) -> Any:
    """Narrow a mask to keys less than `window` positions back; positions, not row indices, as the prompt is shared."""
    position = segments.position

    def narrowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible(batch, head, query, key) & (position[query] - position[key] < window)

    return narrowed


@functools.cache
def _compiled_flex() -> Any:
    """Return FlexAttention compiled, once: uncompiled, it holds all the scores."""
    from torch.nn.attention.flex_attention import flex_attention

    raise_recompile_limit()
    return torch.compile(flex_attention, dynamic=True)


def install() -> None:
    """Register the kernels with transformers; calling it again changes nothing.

    No mask function is registered under the name: transformers then makes no mask, and does not look whether the positions restart,
    which would wait for the device in every forward.
    """
    AttentionInterface.register(NAME, packed_attention)
