"""The optimizer and its learning rate: the rate is a pure function of the step, so there is no scheduler to save or to step twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dpo_cli.train.sliced_optimizer import SlicedOptimizer

if TYPE_CHECKING:
    from dpo_cli.recipe.optim import Optim


def learning_rate(step: int, total: int, optim: Optim) -> float:
    """Return the learning rate of a step (from 0): a linear rise, then constant, a line or a half cosine down to zero.

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
    """Return the warm-up in steps: below 1 it is a share of the run."""
    return round(total * warmup) if warmup < 1 else min(int(warmup), total)


def build_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimizer: fused AdamW where weights and moments are in fp32; vectors (norms, biases) are not decayed.

    The loop sets `found_inf` and `rounding_seed` before each step (`SlicedOptimizer`); fused AdamW reads the first.
    """
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {"lr": optim.lr, "eps": optim.eps}
    if optim.name.startswith("adamw"):
        settings["betas"] = (optim.betas[0], optim.betas[1])
    else:
        settings["alpha"] = optim.alpha
    if optim.name == "adamw" and all(weight.dtype == torch.float32 for weight in trained):
        return torch.optim.AdamW(filled, fused=True, **settings)
    return SlicedOptimizer([group | settings for group in filled], optim.name)


PARTS = {
    "lora_": "adapter",
    "embed": "embeddings",
    "norm": "norms",
    "attn": "attention",
    "mlp": "mlp",
    "head": "head",
}
"""What stands in a weight's name -> what it belongs to, the first that fits."""


def update_sizes(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return `optim/update/<part>`: the root mean square of AdamW's last move of a part's trained weights, in units of the learning rate.

    About 0.1 to 1 where gradients come in, 0 where none does. Reads both moments once, and waits for the device. Other optimizers, and
    moments in 8 bits, have none.
    """
    if "betas" not in optimizer.param_groups[0] or getattr(optimizer, "is_quantized", False):
        return {}
    sums: dict[str, list[torch.Tensor]] = {}
    counts: dict[str, int] = {}
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            continue
        part = next((part for mark, part in PARTS.items() if mark in name), "other")
        counts[part] = counts.get(part, 0) + weight.numel()
        if state := optimizer.state.get(weight):
            first = state["exp_avg"].float() / (1 - beta1 ** state["step"])
            second = state["exp_avg_sq"].float() / (1 - beta2 ** state["step"])
            move = first / (second.sqrt() + optimizer.param_groups[0]["eps"])
            sums.setdefault(part, []).append(move.square().sum().float())
    if not sums:
        return {}
    totals = torch.stack([torch.stack(each).sum() for each in sums.values()]).tolist()
    moved = dict(zip(sums, totals, strict=True))
    return {f"optim/update/{part}": math.sqrt(moved.get(part, 0.0) / n) for part, n in counts.items()}
