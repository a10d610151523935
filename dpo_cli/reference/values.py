"""The reference's log-probs that a run uses: found in the store, scored where missing, looked up in every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from dpo_cli.reference.store import Values
from dpo_cli.types import LogProbs, TokenGroup

Sums = list[tuple[float, int]]
ScoreAll = Callable[[Sequence[TokenGroup]], list[Sums]]
"""Groups -> for each its completions' (summed log-prob, scored tokens), on all ranks."""

COMMIT_GROUPS = 256
"""Groups scored between two commits: what a kill costs at most."""


class ReferenceValues:
    """What the reference thinks of completions: key -> (summed log-prob in nats, scored tokens)."""

    def __init__(self, known: Values | None = None) -> None:
        """Start with values that are known already."""
        self._values = dict(known or {})

    def fill(
        self,
        groups: Iterable[TokenGroup],
        score_all: ScoreAll,
        commit: Callable[[Values], object] | None = None,
    ) -> int:
        """Score the groups that hold a completion without a value; give how many completions were scored.

        A key stands for token ids and score mask, so equal completions of equal prompts are scored once. Longest first: the
        first batch shows whether memory suffices.

        Args:
            groups: what a run needs.
            score_all: scores groups over all ranks.
            commit: takes each portion of new values as soon as it is there.
        """
        missing = {
            group.keys: group for group in groups if any(key not in self._values for key in group.keys)
        }
        waiting = sorted(missing.values(), key=lambda group: -group.n_tokens)
        for start in range(0, len(waiting), COMMIT_GROUPS):
            chunk = waiting[start : start + COMMIT_GROUPS]
            found = {
                key: value
                for group, sums in zip(chunk, score_all(chunk), strict=True)
                for key, value in zip(group.keys, sums, strict=True)
            }
            if commit is not None:
                commit(found)
            self._values.update(found)
        return sum(len(group.keys) for group in waiting)

    def of(self, groups: Iterable[TokenGroup]) -> dict[str, tuple[float, int]]:
        """Give the values of the groups' completions by key."""
        return {key: self._values[key] for group in groups for key in group.keys}

    def lookup(self, groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> LogProbs:
        """Give the values of the groups' completions in batch order, (N,); every one must have been filled."""
        found = [self._values[key] for group in groups for key in group.keys]
        total = torch.tensor([total for total, _ in found], dtype=torch.float32)
        tokens = torch.tensor([tokens for _, tokens in found])
        return LogProbs(total.to(device, non_blocking=True), tokens.to(device, non_blocking=True))
