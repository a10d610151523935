"""The reference's log-probs that a run uses: by completion, looked up in every step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from dpo_cli.reference.segments import Values
from dpo_cli.types import LogProbs, TokenGroup


class ReferenceValues:
    """What the reference thinks of completions: key -> (summed log-prob in nats, scored tokens)."""

    def __init__(self, known: Values | None = None) -> None:
        """Start with values that are known already."""
        self._values = dict(known or {})

    def add(self, values: Values) -> None:
        """Take more values."""
        self._values.update(values)

    def missing(self, groups: Iterable[TokenGroup]) -> list[TokenGroup]:
        """Return what has to be scored, each completion once: groups with only the completions that have no value.

        A key stands for token ids and score mask, so equal completions of equal prompts are one.
        """
        asked: set[str] = set()
        waiting = []
        for group in groups:
            new = []
            for k, key in enumerate(group.keys):
                if key not in self._values and key not in asked:
                    asked.add(key)
                    new.append(k)
            if len(new) == len(group.keys):
                waiting.append(group)
            elif new:
                waiting.append(group.only(new))
        return waiting

    def of(self, groups: Iterable[TokenGroup]) -> dict[str, tuple[float, int]]:
        """Return the values of the groups' completions by key."""
        return {key: self._values[key] for group in groups for key in group.keys}

    def of_keys(self, keys: Iterable[str]) -> list[tuple[float, int]]:
        """Return values by key, in that order."""
        return [self._values[key] for key in keys]

    def lookup(self, groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> LogProbs:
        """Return the values of the groups' completions in batch order, (N,); every one must be there."""
        found = self.of_keys(key for group in groups for key in group.keys)
        total = torch.tensor([total for total, _ in found], dtype=torch.float32)
        tokens = torch.tensor([tokens for _, tokens in found])
        return LogProbs(total.to(device, non_blocking=True), tokens.to(device, non_blocking=True))
