"""The decoder blocks of a model: compiled one by one, and computed a second time in backward in place of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from dpo_cli.modeling.towers import text_tower

_RECOMPILES = 64
"""Variants of a compiled function before torch runs it uncompiled. Its own limit of 8 is too low: precision, gradient or not, sliding or
full attention and soft-cap make a variant each."""


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder blocks in order: the members of the language model's largest `ModuleList`; none where it has no such list."""
    lists = [module for module in text_tower(model).modules() if isinstance(module, nn.ModuleList)]
    return max((list(each) for each in lists), key=_n_parameters, default=[])


def set_blocks(model: PreTrainedModel, *, is_compiled: bool = False, is_checkpointed: bool = False) -> None:
    """Choose how each block's forward runs; a second call replaces what the first chose.

    Args:
        model: the causal LM or reward model; parameter names stay as they are.
        is_compiled: compile packed rows' forward and backward. Per block, so that one block's code serves all of them; padded rows
            and generation, whose arguments change with every token, stay as they are.
        is_checkpointed: keep a block's inputs alone in a training forward and compute the rest again in backward (Chen et al.,
            arXiv:1604.06174). The gradients are the same, bit for bit where the kernels are deterministic.
    """
    for block in blocks_of(model):
        block.__dict__.pop("forward", None)
        forward: Callable[..., Any] = block.forward
        if is_compiled:
            forward = _compiled(forward)
        if is_checkpointed:
            forward = _checkpointed(block, forward)
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


def _checkpointed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    draws = has_dropout(block)

    def run(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=draws, **kwargs)

    return run


def has_dropout(block: nn.Module) -> bool:
    """Return whether a block draws random numbers in training: a dropout layer, or the attention's own rate."""
    names = ("p", "attention_dropout", "dropout")
    rates = [getattr(module, name, 0.0) for module in block.modules() for name in names]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _n_parameters(blocks: Sequence[nn.Module]) -> int:
    return sum(weight.numel() for block in blocks for weight in block.parameters())
