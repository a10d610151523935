"""One pass over a file of any size: its columns, the words in them, and a sample of its rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dpo_cli.data.formats._base import Row
from dpo_cli.data.rows import PlacedRow
from dpo_cli.data.words import word

SAMPLED = 256
MANY = 256
"""Different words of a column that are counted: one with so many holds texts or numbers."""


@dataclass
class Profile:
    """What one pass over a file shows of its columns."""

    n: int = 0
    words: dict[str, Counter[str]] = field(default_factory=dict)
    """Column -> its values as words, the first `MANY` different ones."""
    sample: list[Row] = field(default_factory=list)
    """Of all rows."""


def look_at(rows: Iterable[PlacedRow]) -> Profile:
    """Give what rows show, the same for the same rows."""
    profile, draw = Profile(), random.Random(0)
    for values, _ in rows:
        profile.n += 1
        for column, value in values.items():
            words = profile.words.setdefault(column, Counter())
            text = word(
                value[:80] if isinstance(value, str) else "" if isinstance(value, list | dict) else value
            )
            if text in words or len(words) < MANY:
                words[text] += 1
        if len(profile.sample) < SAMPLED:
            profile.sample.append(values)
        elif (at := draw.randrange(profile.n)) < SAMPLED:
            profile.sample[at] = values
    return profile
