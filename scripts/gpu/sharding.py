"""`fully_shard` around the scorer in a group of one rank: the same loss and gradients as without it."""

from __future__ import annotations

import socket

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from dpo_cli.modeling.scorer import Scorer, score
from scripts.gpu.context import Context
from scripts.gpu.shapes import random_llama, random_pairs

RELATIVE = {"fp32": 1e-5, "bf16": 0.05}


def run(here: Context) -> None:
    """Shard every block and then the scorer itself, and compare with the plain scorer, in fp32 and in bf16 where the device has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = "nccl" if here.is_cuda else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        for precision in ("fp32", "bf16") if here.is_cuda else ("fp32",):
            _compare(here, precision)
    finally:
        dist.destroy_process_group()


def _compare(here: Context, precision: str) -> None:
    plain, sharded = (Scorer(random_llama("135M", here.tiny, here.device)) for _ in range(2))
    groups = random_pairs(4, 64 if here.tiny else 512, 0.5, plain.config.vocab_size)
    low = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in sharded.model.model.layers:
        fully_shard(block, mp_policy=policy)
    # The root too: a forward without backward would otherwise leave its weights whole.
    fully_shard(sharded, mp_policy=policy, reshard_after_forward=True)
    totals = []
    for scorer in (plain, sharded):
        with torch.autocast(here.device.type, dtype=torch.bfloat16, enabled=low is not None):
            out = score(scorer, plain.layout(groups))
        out.total.sum().backward()
        totals.append(out.total.detach())
    here.check(
        f"{precision}: nats, largest difference per token",
        ((totals[0] - totals[1]).abs() / 32).max().item(),
        RELATIVE[precision],
    )
    worst = 0.0
    for (name, mine), theirs in zip(sharded.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
        whole = mine.grad.full_tensor()
        worst = max(worst, ((whole - theirs.grad).norm() / theirs.grad.norm()).item())
    here.check(f"{precision}: gradient of a weight, relative, largest", worst, RELATIVE[precision])
