"""Known values scored again."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest

from dpo_cli.engine.batching import score_groups
from dpo_cli.errors import StorageError
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.reference import spot_checks
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.types import TokenGroup
from tests.fakes import tiny_llama
from tests.modeling.test_scorer import random_group

GROUPS = [random_group(np.random.default_rng(i), 5 + i % 7, (4, 6)) for i in range(40)]


def scored(scorer: Scorer) -> dict[str, tuple[float, int]]:
    sums = score_groups(scorer, GROUPS, 300, nullcontext)
    return {
        k: v for group, own in zip(GROUPS, sums, strict=True) for k, v in zip(group.keys, own, strict=True)
    }


def check(
    scorer: Scorer, values: dict[str, tuple[float, int]], groups: list[TokenGroup], precision: str = "fp32"
) -> spot_checks.Spot:
    return spot_checks.check(scorer, groups, ReferenceValues(values), precision, nullcontext, "the store")


def test_other_batches_give_the_same_values() -> None:
    scorer = Scorer(tiny_llama())

    found = check(scorer, scored(scorer), GROUPS[:16])

    assert found.completions == 32
    assert found.max_abs_diff < 1e-4
    assert found.mean < 1e-5


@pytest.mark.parametrize("wrong", [(-0.01, 0), (0.0, 1)])
def test_fault_037_a_poisoned_value_names_the_key_and_both_values(wrong: tuple[float, int]) -> None:
    scorer = Scorer(tiny_llama())
    values = scored(scorer)
    key = GROUPS[3].keys[1]
    right = values[key]
    values[key] = (right[0] + wrong[0], right[1] + wrong[1])

    with pytest.raises(StorageError) as caught:
        check(scorer, values, GROUPS[:16])

    told = str(caught.value)
    assert caught.value.code == 5
    assert all(part in told for part in (key, f"{values[key][0]:.4f}", f"{right[0]:.4f}", "the store"))


def test_rounding_of_short_answers_passes_and_another_model_does_not() -> None:
    """In bf16 an answer of three tokens may be off by 0.05 nats: 0.02 a token, which is far too much for one of a hundred."""
    scorer = Scorer(tiny_llama())
    values, rng = scored(scorer), random.Random(0)
    noisy = {key: (total + rng.gauss(0, 0.04) * n**0.5, n) for key, (total, n) in values.items()}
    assert check(scorer, noisy, GROUPS[:16], "bf16").mean > 2e-3

    other = {key: (total + 0.1 * n, n) for key, (total, n) in values.items()}
    with pytest.raises(StorageError, match=r"mean difference .* per root of tokens, allowed 5e-02"):
        check(scorer, other, GROUPS[:16], "bf16")


def test_values_of_others_are_checked_first() -> None:
    suspects = {GROUPS[33].keys[0], GROUPS[7].keys[1]}

    chosen = spot_checks.choose(range(40), GROUPS, suspects, 10_000, random.Random(0))

    assert sorted(chosen[:2]) == [7, 33]
    assert len(set(chosen)) == spot_checks.ROWS


def test_what_is_checked_fits_into_a_batch_but_is_never_nothing() -> None:
    few = spot_checks.choose(range(40), GROUPS, set(), 60, random.Random(0))

    assert 1 <= len(few) < spot_checks.ROWS
    assert sum(GROUPS[i].n_tokens for i in few) <= 60
    assert len(spot_checks.choose(range(40), GROUPS, set(), 1, random.Random(0))) == 1
    assert spot_checks.choose([], GROUPS, set(), 100, random.Random(0)) == []
