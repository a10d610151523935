"""Scoring what the store does not hold yet, committed as it goes, beside other processes that do the same."""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dpo_cli.engine.batching import Sums
from dpo_cli.errors import NumericsError, Problem
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.segments import Values
from dpo_cli.reference.store import Store
from dpo_cli.types import TokenGroup

T = TypeVar("T")
ScoreAll = Callable[[Sequence[TokenGroup], Callable[[int], None]], list[Sums]]
"""Groups, and what to tell of each done -> for each its completions' (summed log-prob, scored tokens), on all ranks."""

COMMIT_ROWS = 64
COMMIT_S = 5.0
"""Groups, or seconds, between two commits: what a kill costs at most."""
_BLOCK = 16
"""Neighbours in length stay together, so that padded rows waste little."""


class Ranks(Protocol):
    """What filling needs of the ranks of a job."""

    @property
    def world(self) -> int:
        """Number of ranks."""

    def from_main(self, value: T) -> T:
        """Return the main rank's value on every rank."""


@dataclass(frozen=True)
class Filled:
    """What filling did, in completions."""

    scored: int
    """Scored here."""
    arrived: int
    """Scored by other processes meanwhile."""
    seconds: float


def fill(
    values: ReferenceValues,
    groups: Sequence[TokenGroup],
    score_all: ScoreAll,
    store: Store | None,
    ranks: Ranks,
    advance: Callable[[int], None] = lambda _done: None,
    clock: Callable[[], float] = time.monotonic,
) -> Filled:
    """Score the completions without a value, and commit them every 64 groups or 5 seconds, whichever is sooner.

    The longest group of each rank comes first, alone: it shows at once whether memory suffices. The others follow in an order of this
    process's own, and before each portion the store is listed again, so that processes on one set divide the work without locks.

    Args:
        values: what is known; gets the rest.
        groups: what a run needs.
        score_all: scores groups over all ranks.
        store: where the main rank commits; None on the others.
        ranks: the job's ranks.
        advance: called with how many groups are done.
        clock: seconds, for tests.

    Raises:
        NumericsError: a log-prob is not finite; nothing of its portion is committed.
        StorageError: the store cannot be written.
    """
    waiting = values.missing(groups)
    seed = ranks.from_main(f"{socket.gethostname()} {os.getpid()}")
    order = _order(sorted(waiting, key=lambda group: -group.n_tokens), ranks.world, random.Random(seed))
    wanted = {key for group in waiting for key in group.keys}
    began, size, scored, arrived = clock(), ranks.world, 0, 0
    while order:
        if news := ranks.from_main(store.read(wanted) if store else None):
            values.add(news)
            left = values.missing(order)
            arrived += _completions(order) - _completions(left)
            advance(len(order) - len(left))
            order = left
            continue
        chunk, order = order[:size], order[size:]
        started = clock()
        found = _scored(chunk, score_all, advance)
        if store is not None:
            store.write(found)
        values.add(found)
        scored += len(found)
        size = ranks.from_main(_next_size(len(chunk), clock() - started, ranks.world))
    if store is not None:
        store.merge()
    return Filled(scored, arrived, clock() - began)


def _scored(chunk: Sequence[TokenGroup], score_all: ScoreAll, advance: Callable[[int], None]) -> Values:
    done = 0

    def own(amount: int) -> None:
        nonlocal done
        done += amount
        advance(amount)

    sums = score_all(chunk, own)
    advance(len(chunk) - done)  # what other ranks did
    if bad := [
        group.source for group, own_sums in zip(chunk, sums, strict=True) if not _are_finite(own_sums)
    ]:
        fix = "reference.precision=fp32, other weights, or leave these rows out"
        raise NumericsError(Problem(row, "the reference's log-prob is not finite", fix) for row in bad)
    return {
        key: value
        for group, own_sums in zip(chunk, sums, strict=True)
        for key, value in zip(group.keys, own_sums, strict=True)
    }


def _are_finite(sums: Sums) -> bool:
    return all(math.isfinite(total) for total, _ in sums)


def _order(longest_first: list[TokenGroup], world: int, rng: random.Random) -> list[TokenGroup]:
    """Put the probe first, then blocks of similar length in random order."""
    probe, rest = longest_first[:world], longest_first[world:]
    blocks = [rest[start : start + _BLOCK] for start in range(0, len(rest), _BLOCK)]
    rng.shuffle(blocks)
    return [*probe, *(group for block in blocks for group in block)]


def _completions(groups: Sequence[TokenGroup]) -> int:
    return sum(len(group.completions) for group in groups)


def _next_size(groups: int, seconds: float, world: int) -> int:
    """Return how many groups to score until the next commit."""
    fitting = int(groups * COMMIT_S / seconds) if seconds > 0 else COMMIT_ROWS * world
    return max(world, min(fitting, COMMIT_ROWS * world))
