"""What a loss may ask of a reference."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Protocol

import torch

from dpo_cli.types import LogProbs, TokenGroup, Want


class ReferenceSource(Protocol):
    """Gives the reference's log-probs of a batch."""

    def lookup(self, groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> LogProbs:
        """Return the values of the groups' completions in batch order, (N,)."""


def reference_of(
    source: ReferenceSource | None,
    groups: Sequence[TokenGroup],
    want: Set[Want],
    device: torch.device | str = "cpu",
) -> LogProbs | None:
    """Return the reference's log-probs of a batch, and what a method wants beside their sums; None without a reference."""
    if source is None:
        return None
    found = source.lookup(groups, device)
    if "public" not in want:
        return found
    return replace(found, public=source.lookup([group.public() for group in groups], device).total)
