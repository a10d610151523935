"""The reference scored beside the policy, in every step: a second model in memory. For checking the cached values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.types import LogProbs, TokenGroup


class LiveReference:
    """A frozen scorer behind the same call as `ReferenceValues`."""

    def __init__(self, scorer: Scorer, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        """Take a scorer of its own; it is frozen here."""
        self._scorer = scorer.eval().requires_grad_(False)
        self._autocast = autocast

    def lookup(self, groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> LogProbs:
        """Score the groups' completions now, (N,)."""
        with torch.no_grad(), self._autocast():
            found = score(self._scorer, self._scorer.layout(groups))
        return LogProbs(found.total.to(device), found.tokens.to(device))
