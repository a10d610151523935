"""Out of memory made rare: the heaviest micro-batch is tried before the reference pass and the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import OutOfMemoryError
from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.oom import naming_rows
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.types import TokenGroup


def fitting_budget(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    lengths: Sequence[int],
    budget: int,
    runtime: Runtime,
    optimizer: str = "adamw",
) -> int:
    """Return the token budget, halved until a forward and backward of the heaviest micro-batch fits beside gradients and moments.

    Args:
        scorer: on its device and path.
        groups: the run's examples.
        lengths: tokens that each costs on that path.
        budget: tokens of a micro-batch, as estimated.
        runtime: opens the run's precision.
        optimizer: as `optim.name`; its moments are made by the first step.

    Raises:
        OutOfMemoryError: not even the longest example alone fits.
    """
    while True:
        members = _heaviest(lengths, budget)
        try:
            _try(scorer, [groups[member] for member in members], runtime, optimizer)
        except OutOfMemoryError:
            if len(members) == 1:
                raise
        else:
            return budget
        # Out here the exception is gone, and with it the frames that held the tensors.
        budget = max(2, budget // 2)
        release(scorer, runtime.device)


def _heaviest(lengths: Sequence[int], budget: int) -> list[int]:
    """Return the longest examples that fill a micro-batch, at least one."""
    members: list[int] = []
    n_tokens = 0
    for member in sorted(range(len(lengths)), key=lambda member: -lengths[member]):
        n_tokens += lengths[member]
        if members and n_tokens > budget:
            break
        members.append(member)
    return members


def _try(scorer: Scorer, groups: Sequence[TokenGroup], runtime: Runtime, optimizer: str) -> None:
    trained = [weight for weight in scorer.parameters() if weight.requires_grad]
    n_bytes = int(sum(weight.numel() * moment_bytes_of(optimizer, weight.itemsize) for weight in trained))
    is_training = scorer.training
    scorer.train()
    with naming_rows(groups):
        moments = torch.empty(n_bytes, dtype=torch.uint8, device=runtime.device)
        with runtime.autocast():
            total = score(scorer, scorer.layout(groups)).total
        total.sum().backward()
    del moments
    scorer.train(is_training)
    release(scorer, runtime.device)


def release(scorer: Scorer, device: torch.device) -> None:
    """Drop the gradients and hand the allocator's cache back."""
    scorer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
