"""AdamW and its learning rate: the rate is a pure function of the step, so there is no scheduler to save or to step twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Optim


def learning_rate(step: int, total: int, optim: Optim) -> float:
    """Give the learning rate of a step (from 0): a linear rise, then constant, a line or a half cosine down to zero.

    The first step already learns: step s of w warm-up steps has (s + 1) / w of the peak; the last step stays above zero.
    """
    warmup = warmup_steps(total, optim.warmup)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    if optim.schedule == "constant":
        return optim.lr
    left = (total - step) / max(1, total - warmup)
    return optim.lr * (left if optim.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


def warmup_steps(total: int, warmup: float) -> int:
    """Give the warm-up in steps: below 1 it is a share of the run."""
    return round(total * warmup) if warmup < 1 else min(int(warmup), total)


def build_optimizer(module: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """Give fused AdamW; vectors (norms, biases) are not decayed."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        filled, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]), eps=optim.eps, fused=True
    )
