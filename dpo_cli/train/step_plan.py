"""Which examples a step holds, and how they are dealt to ranks and micro-batches: pure functions, so resume is arithmetic."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_MASK = (1 << 64) - 1


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the optimizer steps of one pass over n examples; the last one may be smaller."""
    return math.ceil(n / batch_size)


def total_steps(n: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Return the optimizer steps of a run: `epochs` passes, or fewer where `max_steps` says so."""
    steps = math.ceil(round(epochs * steps_per_epoch(n, batch_size), 9))
    return steps if max_steps is None else min(steps, max_steps)


def examples_of_step(step: int, n: int, batch_size: int, seed: int) -> list[int]:
    """Return the examples of a step (from 0), each exactly once an epoch.

    Depends on nothing else: not on the world size, the workers, or what ran before.
    """
    epoch, batch = divmod(step, steps_per_epoch(n, batch_size))
    return _order(epoch, n, seed)[batch * batch_size : (batch + 1) * batch_size].tolist()


def micro_batches(
    examples: Sequence[int], lengths: Sequence[int], world: int, max_tokens: int
) -> list[list[tuple[int, ...]]]:
    """Deal a step's examples to ranks in token-budget bins: [rank][micro-batch] -> examples.

    Every example stands in exactly one bin, every rank has the same number of bins (an empty one is filler), loads are balanced,
    and no bin is above `max_tokens` unless it holds a single example that is.

    Args:
        examples: the step's examples.
        lengths: tokens of every example of the data set, by its number.
        world: ranks.
        max_tokens: budget of a bin.
    """
    longest_first = sorted(examples, key=lambda example: (-lengths[example], example))
    # An example above the budget fills one bin, not several: bins that nothing needs would be filler to compute.
    total = sum(min(lengths[example], max_tokens) for example in examples)
    per_rank = max(1, math.ceil(total / (world * max_tokens)))
    while (bins := _fill(longest_first, lengths, world * per_rank, max_tokens)) is None:
        per_rank += 1
    return [bins[rank::world] for rank in range(world)]


def _fill(
    examples: Sequence[int], lengths: Sequence[int], n_bins: int, max_tokens: int
) -> list[tuple[int, ...]] | None:
    """Put the longest example into the lightest bin, again and again; None where a shared bin overflows."""
    bins: list[list[int]] = [[] for _ in range(n_bins)]
    heap = [(0, number) for number in range(n_bins)]
    for example in examples:
        load, lightest = heapq.heappop(heap)
        if load and load + lengths[example] > max_tokens:
            return None
        bins[lightest].append(example)
        heapq.heappush(heap, (load + lengths[example], lightest))
    return [tuple(members) for members in bins]


@lru_cache(maxsize=4)
def _order(epoch: int, n: int, seed: int) -> np.ndarray:
    """Return an epoch's order, (n,) int64: example numbers sorted by a hash, which no library's release can change."""
    key = _mix(np.uint64((seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03 + 1) & _MASK))
    return np.argsort(_mix(np.arange(n, dtype=np.uint64) ^ key), kind="stable")


def _mix(values: np.ndarray | np.uint64) -> np.ndarray:
    """Scramble 64-bit integers (the finaliser of SplitMix64; Steele, Lea, Flood 2014)."""
    mixed = np.atleast_1d(values).copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
