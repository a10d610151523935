"""Every method of pairs with every loss it has, and log-probs to try them on; the others have tests of their own."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import torch

from dpo_cli import methods
from dpo_cli.methods._pairwise import LOSSES, Divergence
from dpo_cli.methods.dpo import DPOConfig
from dpo_cli.methods.ipo import IPOConfig
from dpo_cli.types import LogProbs

SMOOTHED = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
SORTED = ("aot", "aot_unpaired")
"""Losses that sort their micro-batch."""

DPO = {
    **{f"dpo-{name}": DPOConfig(loss=name) for name in LOSSES if name != "exo_pair"},
    **{f"dpo-{name}-smoothed": DPOConfig(loss=name, label_smoothing=0.1) for name in SMOOTHED},
    **{f"dpo-{name}": DPOConfig(f_divergence=name) for name in get_args(Divergence)},
    "dpo-mix": DPOConfig(loss={"apo_zero": 0.5, "bco_pair": 2.0}),
    "dpo-rpo": DPOConfig(loss={"sigmoid": 1.0, "sft": 0.5}),
}
CONFIGS: dict[str, Any] = {
    **{name: methods.get(name).config() for name in methods.names() if methods.get(name).data == "pairs"},
    **DPO,
    "ipo-mean": IPOConfig(length_normalize=True),
}
"""Name of the case -> config; its method is `config.name`."""

IN_PARTS = {
    key: config
    for key, config in CONFIGS.items()
    if not (isinstance(config, DPOConfig) and config.loss in SORTED)
}
"""Cases whose loss does not depend on how a step is cut into micro-batches."""


def random_pairs(n: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[LogProbs, LogProbs]:
    """Give n pairs of (policy, reference); log-ratios of a few nats, 1 to 40 tokens, no two completions of equal length."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randperm(40, generator=generator)[: 2 * n] + 1
    reference = -(0.5 + torch.rand(2 * n, generator=generator, dtype=dtype)) * tokens
    policy = reference + 2 * torch.randn(2 * n, generator=generator, dtype=dtype)
    return LogProbs(policy.clamp(max=-0.05), tokens), LogProbs(reference, tokens)


def with_gradient(values: LogProbs) -> LogProbs:
    return dataclasses.replace(values, total=values.total.clone().requires_grad_())


def part(values: LogProbs, begin: int, end: int) -> LogProbs:
    """Give pairs begin to end."""
    return LogProbs(values.total[2 * begin : 2 * end], values.tokens[2 * begin : 2 * end])
