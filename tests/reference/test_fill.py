"""Filling the store: nothing twice, committed in small portions, shared between processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.fill import COMMIT_ROWS, Filled, Sums, fill
from dpo_cli.reference.store import Store
from dpo_cli.types import TokenGroup
from tests.reference.test_cached import group, minus_ids

T = TypeVar("T")


class Alone:
    """A job of one rank."""

    world = 1

    def from_main(self, value: T) -> T:
        """Give the value back."""
        return value


class Scoring:
    """Gives minus the sum of a completion's ids; each group takes a second; remembers what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[list[TokenGroup]] = []
        self.now = 0.0
        self.seconds = seconds

    def __call__(self, groups: Sequence[TokenGroup], advance: Callable[[int], None]) -> list[Sums]:
        self.asked.append(list(groups))
        self.now += self.seconds * len(groups)
        advance(len(groups))
        return [[(-float(ids.sum()), len(ids)) for ids in one.completions] for one in groups]

    @property
    def completions(self) -> int:
        """Give how many completions were scored."""
        return sum(len(each.keys) for asked in self.asked for each in asked)


def open_store(root: Path) -> Store:
    return Store(root, "ns", {})


def many(n: int) -> list[TokenGroup]:
    """Give n groups of different lengths, the longest in the middle."""
    lengths = [1 + (7 * i) % n for i in range(n)]
    return [group([1] * length, [2], prompt=i) for i, length in enumerate(lengths)]


def run(groups: list[TokenGroup], scoring: Scoring, store: Store | None) -> Filled:
    values = ReferenceValues(store.read() if store else None)
    return fill(values, groups, scoring, store, Alone(), clock=lambda: scoring.now)


def test_the_longest_comes_alone_and_first_then_portions_of_64(tmp_path: Path) -> None:
    groups, scoring = many(300), Scoring()

    done = run(groups, scoring, open_store(tmp_path))

    sizes = [len(asked) for asked in scoring.asked]
    assert scoring.asked[0] == [max(groups, key=lambda each: each.n_tokens)]
    assert sizes == [1, 64, 64, 64, 64, 43]
    assert done == Filled(600, 0, 0.0)


def test_slow_scoring_is_committed_every_five_seconds(tmp_path: Path) -> None:
    scoring = Scoring(seconds=1.0)

    run(many(23), scoring, open_store(tmp_path))

    assert [len(asked) for asked in scoring.asked] == [1, 5, 5, 5, 5, 2]


def test_what_was_committed_before_a_crash_is_not_scored_again(tmp_path: Path) -> None:
    class Crash(Scoring):
        def __call__(self, groups: Sequence[TokenGroup], advance: Callable[[int], None]) -> list[Sums]:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().__call__(groups, advance)

    groups, crashed, again = many(300), Crash(), Scoring()
    with pytest.raises(KeyboardInterrupt):
        run(groups, crashed, open_store(tmp_path))
    run(groups, again, open_store(tmp_path))

    assert crashed.completions == 2 * (1 + 64 + 64)
    assert crashed.completions + again.completions == 600
    assert open_store(tmp_path).read() == minus_ids(*groups)


def test_what_another_process_scores_meanwhile_is_taken_from_it(tmp_path: Path) -> None:
    groups = many(200)
    other = open_store(tmp_path)

    class Beside(Scoring):
        def __call__(self, chunk: Sequence[TokenGroup], advance: Callable[[int], None]) -> list[Sums]:
            if len(self.asked) == 1:
                other.write(minus_ids(*groups[:150]))
            return super().__call__(chunk, advance)

    scoring = Beside()
    done = run(groups, scoring, open_store(tmp_path))

    assert done.scored == scoring.completions
    assert done.scored + done.arrived == 400
    assert scoring.completions <= 2 * (50 + 1 + COMMIT_ROWS)
    assert open_store(tmp_path).read() == minus_ids(*groups)


def test_processes_go_through_the_rows_in_different_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    for pid in (11, 12):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        scoring = Scoring()
        run(many(300), scoring, None)
        orders.append([each.keys for asked in scoring.asked for each in asked])

    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_portions_are_merged_at_the_end(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    run(many(300), Scoring(), store)

    segments = list((store.folder / "seg").glob("*.parquet"))
    assert [path.name.partition("-")[2] for path in segments] == ["600.parquet"]


def test_fault_030_only_new_completions_are_scored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = [group(*rng.integers(9, 99, (2, 6)).tolist(), prompt=int(i)) for i in range(20)]
    run(groups, Scoring(), open_store(tmp_path))
    new = [group(*rng.integers(9, 99, (2, 6)).tolist(), prompt=int(i)) for i in range(20, 25)]
    scoring = Scoring()

    done = run([*new, *groups[5:], groups[7], groups[8]][::-1], scoring, open_store(tmp_path))

    assert done.scored == scoring.completions == 10
    assert run(groups, scoring, open_store(tmp_path)).scored == 0
    assert scoring.completions == 10
