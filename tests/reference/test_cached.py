"""Reference values: looked up in any order; each completion is missing at most once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.types import TokenGroup


def group(*completions: list[int], prompt: int = 5) -> TokenGroup:
    ids = tuple(np.array(completion, np.int32) for completion in completions)
    return TokenGroup(np.array([prompt], np.int32), ids, tuple(np.ones(len(own), bool) for own in ids))


def minus_ids(*groups: TokenGroup) -> dict[str, tuple[float, int]]:
    """Give each completion minus the sum of its ids."""
    return {
        key: (-float(ids.sum()), len(ids))
        for one in groups
        for key, ids in zip(one.keys, one.completions, strict=True)
    }


def test_lookup_gives_sums_and_counts_in_batch_order() -> None:
    first, second = group([1, 2], [3]), group([4], [5, 6, 7], prompt=9)

    found = ReferenceValues(minus_ids(first, second)).lookup([second, first])

    assert found.total.tolist() == [-4, -18, -3, -3]
    assert found.total.dtype == torch.float32
    assert found.tokens.tolist() == [1, 3, 2, 1]


def test_values_by_key() -> None:
    first = group([1, 2], [3])

    assert ReferenceValues(minus_ids(first)).of([first]) == {
        first.keys[0]: (-3.0, 2),
        first.keys[1]: (-3.0, 1),
    }


def test_a_prompt_or_a_mask_makes_another_completion() -> None:
    one, prompt = group([1, 2], [3]), group([1, 2], [3], prompt=6)
    masked = TokenGroup(one.prompt, one.completions, (np.array([True, False]), one.masks[1]))

    missing = ReferenceValues().missing([one, prompt, masked])

    assert [len(each.keys) for each in missing] == [2, 2, 1]


def test_only_the_completion_without_a_value_is_missing() -> None:
    known, new = group([1, 2], [3]), group([3], [4, 5])

    missing = ReferenceValues(minus_ids(known)).missing([known, new, group([4, 5], [1, 2])])

    assert [each.keys for each in missing] == [(new.keys[1],)]
    assert missing[0].completions[0].tolist() == [4, 5]


def test_equal_completions_are_missing_once() -> None:
    one = group([1], [2])

    assert ReferenceValues().missing([one, group([2], [1]), group([1], [2])]) == [one]


def test_what_is_missing_cannot_be_looked_up() -> None:
    with pytest.raises(KeyError):
        ReferenceValues().lookup([group([1], [2])])
