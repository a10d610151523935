"""Reference values: each completion scored once, looked up in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dpo_cli.reference.values import COMMIT_GROUPS, ReferenceValues, Sums
from dpo_cli.types import TokenGroup


def group(*completions: list[int], prompt: int = 5) -> TokenGroup:
    ids = tuple(np.array(completion, np.int32) for completion in completions)
    return TokenGroup(np.array([prompt], np.int32), ids, tuple(np.ones(len(own), bool) for own in ids))


class Scoring:
    """Gives minus the sum of a completion's ids, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[TokenGroup]] = []

    def __call__(self, groups: Sequence[TokenGroup]) -> list[Sums]:
        self.asked.append(list(groups))
        return [[(-float(ids.sum()), len(ids)) for ids in one.completions] for one in groups]


def test_lookup_gives_sums_and_counts_in_batch_order() -> None:
    first, second = group([1, 2], [3]), group([4], [5, 6, 7], prompt=9)
    values = ReferenceValues()
    assert values.fill([first, second], Scoring()) == 4

    found = values.lookup([second, first])

    assert found.total.tolist() == [-4, -18, -3, -3]
    assert found.total.dtype == torch.float32
    assert found.tokens.tolist() == [1, 3, 2, 1]
    assert values.of([first]) == {first.keys[0]: (-3.0, 2), first.keys[1]: (-3.0, 1)}


def test_equal_groups_are_scored_once_and_known_ones_never() -> None:
    one, other = group([1], [2]), group([3], [4])
    scoring = Scoring()
    values = ReferenceValues()

    assert values.fill([one, group([1], [2]), other], scoring) == 4
    assert values.fill([other, one], scoring) == 0
    assert [len(asked) for asked in scoring.asked] == [2]


def test_values_known_before_are_not_scored() -> None:
    one, other = group([1], [2]), group([3], [4])
    known = {key: (-9.0, 1) for key in one.keys}
    scoring = Scoring()
    values = ReferenceValues(known)

    assert values.fill([one, other], scoring) == 2
    assert scoring.asked == [[other]]
    assert values.lookup([one]).total.tolist() == [-9, -9]


def test_a_prompt_or_a_mask_makes_another_completion() -> None:
    one, prompt = group([1, 2], [3]), group([1, 2], [3], prompt=6)
    masked = TokenGroup(one.prompt, one.completions, (np.array([True, False]), one.masks[1]))
    scoring = Scoring()

    assert ReferenceValues().fill([one, prompt, masked], scoring) == 6


def test_the_longest_come_first_and_every_portion_is_committed_at_once() -> None:
    groups = [group([1] * (1 + i), [2], prompt=i) for i in range(COMMIT_GROUPS + 44)]
    committed: list[int] = []
    scoring = Scoring()

    ReferenceValues().fill(groups, scoring, lambda found: committed.append(len(found)))

    assert [len(asked) for asked in scoring.asked] == [COMMIT_GROUPS, 44]
    assert scoring.asked[0][0] is groups[-1]
    assert committed == [2 * COMMIT_GROUPS, 88]


def test_what_was_not_filled_cannot_be_looked_up() -> None:
    with pytest.raises(KeyError):
        ReferenceValues().lookup([group([1], [2])])
