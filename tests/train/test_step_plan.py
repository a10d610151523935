"""The step plan: each row once, whatever the world."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_cli.train.step_plan import examples_of_step, micro_batches, steps_per_epoch, total_steps


@given(n=st.integers(1, 200), batch_size=st.integers(1, 64), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_example_is_seen_once_an_epoch(n: int, batch_size: int, seed: int) -> None:
    steps = steps_per_epoch(n, batch_size)
    for epoch in range(2):
        seen = [e for s in range(steps) for e in examples_of_step(epoch * steps + s, n, batch_size, seed)]
        assert sorted(seen) == list(range(n))


def test_order_differs_between_epochs_and_seeds_and_is_fixed_forever() -> None:
    assert examples_of_step(0, 100, 8, 0) != examples_of_step(13, 100, 8, 0)
    assert examples_of_step(0, 100, 8, 0) != examples_of_step(0, 100, 8, 1)
    assert examples_of_step(3, 10, 4, 7) == examples_of_step(3, 10, 4, 7)
    # Written down: an order that changes with a library would break every resumed run.
    assert examples_of_step(0, 10, 5, 0) == [6, 0, 8, 1, 4]


def test_fault_045_fewer_rows_than_a_batch_make_one_smaller_step() -> None:
    assert total_steps(5, 32, epochs=1, max_steps=None) == 1
    assert sorted(examples_of_step(0, 5, 32, 0)) == [0, 1, 2, 3, 4]


def test_epochs_may_be_fractions_and_max_steps_stops_earlier() -> None:
    assert total_steps(100, 10, 0.25, None) == 3
    assert total_steps(100, 10, 0.1, None) == 1
    assert total_steps(100, 10, 2, 7) == 7


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    world=st.integers(1, 4),
    max_tokens=st.integers(10, 800),
)
@settings(max_examples=150, deadline=None)
def test_micro_batches_hold_each_row_once_under_the_budget_and_are_as_many_on_each_rank(
    lengths: list[int], world: int, max_tokens: int
) -> None:
    ranks = micro_batches(range(len(lengths)), lengths, world, max_tokens)

    assert len(ranks) == world
    assert len({len(bins) for bins in ranks}) == 1
    assert Counter(e for bins in ranks for members in bins for e in members) == Counter(range(len(lengths)))
    for members in (members for bins in ranks for members in bins):
        assert len(members) <= 1 or sum(lengths[e] for e in members) <= max_tokens


def test_loads_of_ranks_are_balanced() -> None:
    lengths = [(17 * i) % 97 + 3 for i in range(64)]
    ranks = micro_batches(range(64), lengths, 4, 10_000)
    loads = [sum(lengths[e] for members in bins for e in members) for bins in ranks]

    assert max(loads) - min(loads) <= max(lengths)


def test_rows_above_the_budget_cost_no_filler() -> None:
    assert micro_batches([0, 1, 2], [900, 900, 900], world=1, max_tokens=100) == [[(0,), (1,), (2,)]]
    assert [len(bins) for bins in micro_batches([0, 1, 2], [900, 900, 900], world=2, max_tokens=1)] == [2, 2]
