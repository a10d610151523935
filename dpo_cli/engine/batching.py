"""Scoring many groups without gradient: longest first, in token-budget batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from dpo_cli.modeling.oom import naming_rows
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.types import TokenGroup

Sums = list[tuple[float, int]]
"""Of each completion of a group: summed log-prob in nats (a float64 sum), scored tokens."""


def score_groups(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    max_tokens: int,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Callable[[int], None] = lambda _done: None,
) -> list[Sums]:
    """Return the log-probs of every group's completions, in the groups' order.

    Args:
        scorer: the bare scorer; it is put into evaluation mode meanwhile.
        groups: what to score.
        max_tokens: tokens of one batch; a longer group is a batch of its own.
        autocast: opens the precision to compute in.
        progress: called with the number of groups done since the last call.

    Raises:
        OutOfMemoryError: a batch does not fit.
    """
    results: list[Sums] = [[] for _ in groups]
    was_training = scorer.training
    scorer.eval()
    with torch.no_grad(), autocast():
        for members in _batches([group.n_tokens for group in groups], max_tokens):
            chosen = [groups[member] for member in members]
            with naming_rows(chosen):
                _, total, tokens, _ = scorer(scorer.layout(chosen))
            sums = list(zip(total.tolist(), tokens.tolist(), strict=True))
            for member in members:
                n_completions = len(groups[member].completions)
                results[member], sums = sums[:n_completions], sums[n_completions:]
            progress(len(members))
    scorer.train(was_training)
    return results


def _batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cut groups, longest first, into batches: the first batch shows at once whether memory suffices."""
    batches: list[list[int]] = []
    room = 0
    for member in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if not batches or lengths[member] > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(member)
        room -= lengths[member]
    return batches
