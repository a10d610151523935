import numpy as np
import pytest

from dpo_cli.evaluate.pairs.baselines import baselines
from dpo_cli.types import TokenGroup


def _pair(chosen, rejected, unscored=0):
    """A pair with that many scored tokens, behind `unscored` ones."""
    ids = [np.arange(unscored + n, dtype=np.int32) for n in (chosen, rejected)]
    masks = [np.arange(unscored + n) >= unscored for n in (chosen, rejected)]
    return TokenGroup(np.array([1], dtype=np.int32), tuple(ids), tuple(masks))


def test_ties_count_half_for_longer_and_shorter():
    shares = baselines([_pair(5, 3), _pair(4, 4), _pair(2, 9), _pair(8, 7)])
    assert shares.longer_wins == pytest.approx(2.5 / 4)
    assert shares.shorter_wins == pytest.approx(1.5 / 4)
    assert shares.reference_total is None and shares.reference_per_token is None


def test_only_scored_tokens_make_a_completion_long():
    shares = baselines(
        [TokenGroup(np.array([1]), (np.arange(9), np.arange(3)), (np.arange(9) > 7, np.arange(3) > 0))]
    )
    assert shares.longer_wins == 0


def test_the_reference_prefers_by_sum_and_per_token():
    groups = [_pair(10, 2, unscored=3), _pair(2, 2)]
    shares = baselines(groups, np.array([-5.0, -2.0, -3.0, -3.0]))
    assert shares.reference_total == 0.25  # -5 < -2; a tie
    assert shares.reference_per_token == 0.75  # -0.5 > -1; a tie
