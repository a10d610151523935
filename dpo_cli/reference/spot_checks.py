"""Known values scored again: a poisoned or foreign log-prob is found before it teaches anything."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dpo_cli.engine.batching import score_groups
from dpo_cli.errors import StorageError
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.types import TokenGroup

ROWS = 16

NOISE = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest mean difference between two scorings of a completion, nats over the root of its tokens; none may be over ten times that.

Rounding adds up as a random walk does, so a short answer is off by more a token than a long one. SmolLM2-135M in bf16, pairs against
their turned selves, which are computed in another order: 1.7e-2 on average and 0.18 at most where answers have 3 to 30 tokens.
"""


@dataclass(frozen=True)
class Spot:
    """What scoring known values again found."""

    completions: int
    mean: float
    """Mean difference, nats per token."""
    max_abs_diff: float
    """Largest difference of a completion's sum, nats."""

    def __str__(self) -> str:
        return (
            f"spot check: {self.completions} completions scored again, sums within {self.max_abs_diff:.1e} nats,"
            f" {self.mean:.1e} per token"
        )


def choose(
    candidates: Sequence[int],
    groups: Sequence[TokenGroup],
    suspects: Set[str],
    max_tokens: int,
    rng: random.Random,
) -> list[int]:
    """Choose up to 16 groups to score again, those with values of others first, as many as fit into one batch.

    Other ones at every start: what one check misses the next may find.

    Args:
        candidates: places of the groups whose values are known.
        groups: all groups.
        suspects: keys whose value somebody else computed.
        max_tokens: tokens of a batch; one group is taken in any case.
        rng: chooses.
    """
    mixed = rng.sample(candidates, len(candidates))
    mixed.sort(key=lambda i: suspects.isdisjoint(groups[i].keys))
    chosen, room = mixed[:1], max_tokens - sum(groups[i].n_tokens for i in mixed[:1])
    for i in mixed[1:ROWS]:
        if groups[i].n_tokens <= room:
            chosen.append(i)
            room -= groups[i].n_tokens
    return chosen


def check(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    values: ReferenceValues,
    precision: str,
    autocast: Callable[[], AbstractContextManager[object]],
    where: str,
) -> Spot:
    """Score groups again and compare with their known values.

    Args:
        scorer: the reference.
        groups: groups whose values are known.
        values: what is known.
        precision: `fp32` or `bf16`: sets the tolerance.
        autocast: opens that precision.
        where: the store, for the message.

    Raises:
        StorageError: a value is not the reference's.
    """
    budget = sum(group.n_tokens for group in groups)
    live = [pair for sums in score_groups(scorer, groups, budget, autocast) for pair in sums]
    keys = [key for group in groups for key in group.keys]
    places = [group.source for group in groups for _ in group.keys]
    known = values.of_keys(keys)
    sums, tokens = [abs(a - b) for (a, _), (b, _) in zip(live, known, strict=True)], [n for _, n in live]
    apart = [each / n**0.5 for each, n in zip(sums, tokens, strict=True)]
    mean, limit = sum(apart) / len(apart), NOISE[precision]
    worst = max(range(len(apart)), key=lambda i: (live[i][1] != known[i][1], apart[i]))
    counts_agree = live[worst][1] == known[worst][1]
    if not (counts_agree and mean <= limit and apart[worst] <= 10 * limit):
        what = (
            f"stored reference log-probs are not the reference's: {keys[worst]} ({places[worst]}) is stored as"
            f" {known[worst][0]:.4f} nats over {known[worst][1]} tokens, the model gives {live[worst][0]:.4f} over"
            f" {live[worst][1]}; mean difference {mean:.1e} per root of tokens, allowed {limit:.0e}"
        )
        raise StorageError.of(where, what, "`dpo cache gc` that namespace, or reference.store=<a new folder>")
    per_token = [each / n for each, n in zip(sums, tokens, strict=True)]
    return Spot(len(keys), sum(per_token) / len(keys), max(sums))
