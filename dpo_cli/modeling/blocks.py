"""The decoder blocks of a model: compiled one by one, computed again in backward in place of keeping activations, their inputs on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from dpo_cli.modeling.multimodal import text_tower

_RECOMPILES = 64
"""Variants of a compiled function before torch runs it uncompiled. Its own limit of 8 is too low: precision, gradient or not, sliding or
full attention and soft-cap make a variant each."""


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder blocks in order: the members of the language model's largest `ModuleList`; none where it has no such list."""
    lists = [module for module in text_tower(model).modules() if isinstance(module, nn.ModuleList)]
    return max((list(each) for each in lists), key=_n_parameters, default=[])


def set_blocks(
    model: PreTrainedModel,
    *,
    is_compiled: bool = False,
    is_checkpointed: bool = False,
    is_offloaded: bool = False,
) -> None:
    """Choose how each block's forward runs; a second call replaces what the first chose.

    Args:
        model: the causal LM or reward model; parameter names stay as they are.
        is_compiled: compile packed rows' forward and backward. Per block, so that one block's code serves all of them; padded rows
            and generation, whose arguments change with every token, stay as they are.
        is_checkpointed: keep a block's inputs alone in a training forward and compute the rest again in backward (Chen et al.,
            arXiv:1604.06174). The gradients are the same, bit for bit where the kernels are deterministic.
        is_offloaded: of checkpointed blocks, keep the inputs in host memory until backward.
    """
    for block in blocks_of(model):
        block.__dict__.pop("forward", None)
        forward: Callable[..., Any] = block.forward
        if is_compiled:
            forward = _compiled(forward)
        if is_checkpointed:
            forward = _checkpointed(block, forward, is_offloaded=is_offloaded)
        if is_compiled or is_checkpointed:
            block.forward = forward


def raise_recompile_limit() -> None:
    """Let compiled functions have as many variants as this package needs, in this process."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(_RECOMPILES, torch._dynamo.config.recompile_limit)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    raise_recompile_limit()
    compiled = torch.compile(forward, dynamic=True)

    def run(*args: Any, **kwargs: Any) -> Any:
        return (forward if kwargs.get("segments") is None else compiled)(*args, **kwargs)

    return run


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *, is_offloaded: bool) -> Callable[..., Any]:
    draws = has_dropout(block)

    def run(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(hidden, *args, **kwargs)
        if not is_offloaded:
            return checkpoint(forward, hidden, *args, use_reentrant=False, preserve_rng_state=draws, **kwargs)
        kept = _OnHost(hidden)

        def again(_device_of: Tensor, *args: Any, **kwargs: Any) -> Any:
            return forward(kept.take(), *args, **kwargs)

        # An empty tensor shows whose random state to restore: `checkpoint` looks at the device of its arguments.
        return checkpoint(
            again, hidden.new_empty(0), *args, use_reentrant=False, preserve_rng_state=draws, **kwargs
        )

    return run


class _OnHost:
    """A block's input: the tensor itself in forward, after which only a copy in host memory is kept, and that copy in backward.

    Backward computes a block again to get the tensors that its operations saved; gradients flow through the first forward's graph, so the copy
    needs no history.
    """

    def __init__(self, hidden: Tensor) -> None:
        self._first: Tensor | None = hidden
        self._device, self._needs_grad = hidden.device, hidden.requires_grad
        self._copy = torch.empty_like(hidden, device="cpu", pin_memory=hidden.is_cuda, requires_grad=False)

    def take(self) -> Tensor:
        """Return the input, the first time after starting its copy."""
        if self._first is not None:
            hidden, self._first = self._first, None
            self._copy.copy_(hidden.detach(), non_blocking=True)
            return hidden
        return self._copy.to(self._device, non_blocking=True, copy=True).requires_grad_(self._needs_grad)


def has_dropout(block: nn.Module) -> bool:
    """Return whether a block draws random numbers in training: a dropout layer, or the attention's own rate."""
    names = ("p", "attention_dropout", "dropout")
    rates = [getattr(module, name, 0.0) for module in block.modules() for name in names]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _n_parameters(blocks: Sequence[nn.Module]) -> int:
    return sum(weight.numel() for block in blocks for weight in block.parameters())
