"""Scoring without gradient, divided over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dpo_cli.modeling.batching import Sums, score_groups
from dpo_cli.modeling.logprobs import Scorer
from dpo_cli.train.runtime import Runtime
from dpo_cli.types import TokenGroup


def score_over_ranks(
    runtime: Runtime,
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    max_tokens: int,
    advance: Callable[[int], None],
    precision: str = "auto",
) -> list[Sums]:
    """Score each group on one rank; give all results, in the groups' order, on every rank."""
    mine = groups[runtime.rank :: runtime.world]
    own = score_groups(scorer, mine, max_tokens, lambda: runtime.autocast(precision), advance)
    gathered = runtime.gather(list(zip(range(runtime.rank, len(groups), runtime.world), own, strict=True)))
    return [sums for _, sums in sorted(gathered, key=lambda item: item[0])]
