"""Out of memory, said as what the user can turn: which rows, how long, which knob."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dpo_cli.errors import OutOfMemoryError
from dpo_cli.types import TokenGroup

KNOB = "train.max_tokens_per_micro_batch"
_CPU_ALLOCATOR = "can't allocate memory"
"""torch has an error class for GPUs; its CPU allocator raises a plain RuntimeError that says this."""


@contextmanager
def naming_rows(groups: Sequence[TokenGroup], fix: str = "") -> Iterator[None]:
    """Return which rows were computed where memory runs out in the block.

    Args:
        groups: the rows.
        fix: what helps; empty: smaller micro-batches, or where there is only one row, a shorter one.

    Raises:
        OutOfMemoryError: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        longest = max(groups, key=lambda group: group.n_tokens)
        tokens = sum(group.n_tokens for group in groups)
        half = max(tokens // 2, 2)
        what = f"out of memory at {len(groups)} rows of {tokens:,} tokens, the longest {longest.n_tokens:,}"
        if len(groups) == 1:
            what = f"out of memory at this one row of {tokens:,} tokens"
        usual = f"{KNOB}={half}" if len(groups) > 1 else f"data.max_length={half}, or a smaller model"
        raise OutOfMemoryError.of(longest.source, what, fix or usual) from error


@contextmanager
def naming_memory(where: str) -> Iterator[None]:
    """Tell that memory ran out in the block, where that had nothing to do with certain rows: weights, moments, data.

    Raises:
        OutOfMemoryError: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        fix = "`dpo plan RECIPE` lists what takes how much, and what to change, cheapest first"
        raise OutOfMemoryError.of(where, f"not enough memory: {said}", fix) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be had, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )
