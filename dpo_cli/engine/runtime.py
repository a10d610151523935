"""The thin wrapper around accelerate: devices, precision, collectives. Nothing else in the project imports accelerate.

Used as a device layer only: no prepared loader or scheduler, no `accumulate`, no `save_state` (each has a trap that costs exactness).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor, nn

from dpo_cli.errors import DistributedError
from dpo_cli.modeling.precision import choose_precision

T = TypeVar("T")

TIMEOUT = "DPO_RANK_TIMEOUT"
"""Environment variable: seconds that a rank waits for another; of this launch, not of a recipe."""
DEFAULT_TIMEOUT_S = 1800.0


class Runtime:
    """The devices of a run and what is done over all of them."""

    def __init__(self, precision: str) -> None:
        """Join the process group that the launcher announced.

        Args:
            precision: `fp32`, `bf16` or `auto`.

        Raises:
            DistributedError: the launcher started several processes, but they did not find each other.
        """
        patience = timedelta(seconds=_timeout_s())
        self._accelerator = Accelerator(
            gradient_accumulation_steps=1,
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=patience),
                # Gradients are views of the buckets that are reduced, not a second copy of them.
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            ],
        )
        self.device = self._accelerator.device
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
        self.precision = choose_precision(precision, self.device)
        promised = int(os.environ.get("WORLD_SIZE", "1"))
        if promised != self.world:
            what = f"the launcher started {promised} processes, but each sees {self.world}: they would write the same files"
            raise DistributedError.of("WORLD_SIZE", what, "on a CPU set ACCELERATE_USE_CPU=true")
        # Of its own: what ranks agree on between steps is on the CPU and never waits for a GPU.
        self._group = dist.new_group(backend="gloo", timeout=patience) if self.world > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def autocast(self, precision: str = "auto") -> AbstractContextManager[object]:
        """Open an arithmetic: bf16 autocast over fp32 weights, or plain fp32; `auto` is the run's own."""
        if (self.precision if precision == "auto" else precision) == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def prepare(self, scorer: nn.Module) -> nn.Module:
        """Wrap the scorer for gradient synchronisation; one process gets it back as it is. The optimizer stays plain."""
        wrapped: nn.Module = self._accelerator.prepare(scorer)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient; it is not divided by anything."""
        self._accelerator.backward(loss)

    @contextmanager
    def sync_only(self, last: bool, module: nn.Module) -> Iterator[None]:
        """Synchronise gradients over ranks in the last micro-batch of a step only."""
        with nullcontext() if last else self._accelerator.no_sync(module):
            yield

    def clip(self, module: nn.Module, max_norm: float) -> Tensor:
        """Scale gradients down to a norm of at most `max_norm`; return the norm before, (), without a host sync."""
        gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
        if any(gradient.dtype != torch.float32 for gradient in gradients):
            # Gradients in bf16 would have a norm with 8 significant bits.
            norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
            norm = torch.linalg.vector_norm(torch.stack(norms))
            nn.utils.clip_grads_with_norm_(module.parameters(), max_norm, norm)
            return norm
        norm = self._accelerator.clip_grad_norm_(module.parameters(), max_norm)
        assert isinstance(norm, Tensor)
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return the sum over ranks."""
        if self.world == 1:
            return values
        summed = self._accelerator.reduce(values, reduction="sum")
        assert isinstance(summed, Tensor)
        return summed

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items of all ranks, rank after rank, on every rank."""
        return list(items) if self.world == 1 else gather_object(list(items))

    def from_main(self, value: T) -> T:
        """Return the main process's value on every rank."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        broadcast_object_list(box)
        return box[0]

    def highest(self, value: int) -> int:
        """Return the highest value of all ranks, on every rank; a few dozen microseconds, and no GPU is waited for."""
        if self._group is None:
            return value
        box = torch.tensor(value)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self._group)
        return int(box)

    def wait(self) -> None:
        """Wait for all ranks."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group."""
        self._accelerator.end_training()


def _timeout_s() -> float:
    given = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(given) if given else DEFAULT_TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise DistributedError.of(TIMEOUT, f"'{given}' is no number of seconds", f"{TIMEOUT}=1800")
    return seconds
