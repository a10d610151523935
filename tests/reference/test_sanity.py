"""What the reference thinks of the data."""

from __future__ import annotations

import pytest

from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.sanity import ENOUGH, UNTUNED, facts_of
from dpo_cli.types import TokenGroup
from tests.reference.test_cached import group

FIRST, SECOND, THIRD = group([1, 2], [3]), group([4], [5, 6]), group([7, 8], [9, 10])
VALUES = {
    **dict(zip(FIRST.keys, [(-2.0, 2), (-3.0, 1)], strict=True)),
    **dict(zip(SECOND.keys, [(-4.0, 1), (-1.0, 2)], strict=True)),
    **dict(zip(THIRD.keys, [(-2.0, 2), (-2.0, 2)], strict=True)),
}


def of(*groups: TokenGroup, shift: float = 0.0) -> list[str]:
    values = {key: (total + shift * n, n) for key, (total, n) in VALUES.items()}
    facts = facts_of(groups, ReferenceValues(values))
    assert facts is not None
    return facts.lines()


def test_means_over_pairs_and_ties_half() -> None:
    facts = facts_of([FIRST, SECOND, THIRD], ReferenceValues(VALUES))

    assert facts is not None
    assert (facts.chosen, facts.rejected) == pytest.approx(((-1 - 4 - 1) / 3, (-3 - 0.5 - 1) / 3))
    assert facts.right == pytest.approx(0.5)  # yes, no, tie
    assert facts.longer_wins == pytest.approx(0.5)  # longer, shorter, equal
    assert facts.n == 3


def test_a_tuned_reference_is_one_line() -> None:
    assert of(FIRST) == [
        'reference on 1 pairs: chosen -1.00, rejected -3.00 nats per token; ranks 100% right ("longer wins" 100%)'
    ]


def test_answers_that_the_reference_was_never_tuned_on_are_told() -> None:
    told = of(FIRST, shift=UNTUNED)

    assert len(told) == 2
    assert "base model" in told[1]
    assert "SFT" in told[1]


def test_labels_that_look_turned_over_are_told() -> None:
    assert len(of(*[SECOND] * (ENOUGH - 1), shift=2.0)) == 1  # too few to say
    told = of(*[SECOND] * ENOUGH, shift=2.0)
    assert len(told) == 2
    assert "rejected answer better in 100% of pairs, per token in 100%: labels may be turned over" in told[1]
    assert len(of(*[FIRST, SECOND] * ENOUGH, shift=2.0)) == 1  # half of them


def test_a_sum_that_length_explains_turns_no_label_over() -> None:
    long_chosen = group([1, 2, 3, 4], [5])
    values = ReferenceValues(dict(zip(long_chosen.keys, [(-4.0, 4), (-2.0, 1)], strict=True)))

    facts = facts_of([long_chosen] * ENOUGH, values)

    assert facts is not None
    assert (facts.right, facts.right_per_token) == (0.0, 1.0)
    assert len(facts.lines()) == 1


def test_what_is_no_pair_has_no_figures() -> None:
    assert facts_of([group([1])], ReferenceValues()) is None
