"""Scoring without gradient, divided over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace

import torch

from dpo_cli.engine.batching import Sums, score_groups
from dpo_cli.engine.runtime import Runtime
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.types import LogProbs, TokenGroup, Want


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


def log_probs(sums: Sequence[Sums]) -> LogProbs:
    """Return the sums of groups as log-probs on the CPU, (N,)."""
    flat = [value for own in sums for value in own]
    total = torch.tensor([total for total, _ in flat], dtype=torch.float32)
    return LogProbs(total, torch.tensor([tokens for _, tokens in flat], dtype=torch.int64))


def log_probs_over_ranks(
    score_all: Callable[[Sequence[TokenGroup]], list[Sums]], groups: Sequence[TokenGroup], want: Set[Want]
) -> LogProbs:
    """Return the log-probs of groups and what a method wants beside them, scored apart: an evaluation is not worth a layout of its own.

    Not `confidence`: it weighs training pairs only.
    """
    scored = log_probs(score_all(groups))
    if "public" in want:
        scored = replace(scored, public=log_probs(score_all([group.public() for group in groups])).total)
    if "prompt" in want:
        prompts = [(i, alone) for i, group in enumerate(groups) if (alone := group.prompt_alone())]
        own = log_probs(score_all([alone for _, alone in prompts]))
        at = torch.tensor([i for i, _ in prompts], dtype=torch.int64)
        nothing = torch.zeros(len(groups))
        tokens = torch.zeros(len(groups), dtype=torch.int64)
        scored = replace(
            scored,
            prompt=nothing.index_copy(0, at, own.total),
            prompt_tokens=tokens.index_copy(0, at, own.tokens),
        )
    return scored
