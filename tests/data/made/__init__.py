"""Preference files with a known truth, drawn from a seed: shapes, names and codes as public sets and labelling tools have them."""

from __future__ import annotations

import random

from tests.data.made import grouped, lists, pairs, singles, votes
from tests.data.made.base import Made

SHAPES = (
    pairs.flat,
    pairs.conversations,
    pairs.transcripts,
    pairs.last_answer,
    pairs.sides,
    votes.flat,
    votes.flat,
    votes.flat,
    votes.nested,
    votes.conversations,
    votes.rated,
    votes.one_hot,
    lists.rated,
    lists.objects,
    lists.best,
    lists.ordered,
    singles.labelled,
    singles.conversations,
    singles.rated,
    singles.imitated,
    grouped.by_prompt,
    grouped.flat_trees,
    grouped.nested_trees,
)


def make(seed: int) -> Made:
    """Return the file of a seed."""
    rng = random.Random(seed)
    shape = SHAPES[seed % len(SHAPES)]
    return shape(rng)
