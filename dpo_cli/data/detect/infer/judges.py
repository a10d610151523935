"""One answer a row, or one conversation, with all that may say how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dpo_cli.data.detect.columns.names import (
    JUDGE_WORDS,
    LOW_WORDS,
    NEGATIVE_WORDS,
    RANK_WORDS,
    RATING_WORDS,
    by_name,
    is_meta,
    words_in,
)
from dpo_cli.data.detect.columns.profile import MANY, Profile
from dpo_cli.data.detect.infer.candidate import Candidate, Names
from dpo_cli.data.detect.label_words import as_number, guess_labels


def judges(profile: Profile, given: Names, *taken: str) -> Iterator[str]:
    """Yield the columns that may say how good an answer is."""
    if "label" in given or "rating" in given:
        yield given.get("label") or given["rating"]
        return
    free = [path for path in profile.free(given) if path not in taken]
    named = by_name("label", free)
    words = JUDGE_WORDS | NEGATIVE_WORDS
    others = [p for p in free if p not in named and set(words_in(p)) & words and not is_meta(p)]
    others = [p for p in others if p == profile.columns[p].top or set(words_in(p)) & JUDGE_WORDS]
    others += [
        p
        for p in free
        if p not in (*named, *others) and set(words_in(p)) & (RANK_WORDS | LOW_WORDS) and not is_meta(p)
    ]
    for path in [*named, *others]:
        column = profile.columns[path]
        is_few = len(profile.words_of(path)) < MANY and column.length < 40
        if column.kind in ("number", "flag") or (
            column.kind in ("text", "other") and is_few and column.kind == "text"
        ):
            yield path


def labelled(layout: str, base: Names, path: str, profile: Profile, alone: bool) -> Iterator[Candidate]:
    """Yield the readings of a column that judges one answer: a label, or ratings of the answers to one prompt."""
    words = [text for text in profile.words_of(path)]
    labels, unknown = guess_labels(words)
    numbers = {number for text in words if (number := as_number(text)) is not None}
    own = {"true", "false", "1", "0"}
    values = [value for value in profile.column(path).values if value is not None]
    is_own = set(words) <= own and all(isinstance(value, bool | int) for value in values)
    first = Candidate(
        layout,
        {**base, "label": path},
        {} if is_own else labels,
        means=f"{path!r} says whether an answer is wanted",
        unknown=tuple(unknown),
        is_sure=alone,
    )
    if set(words_in(path)) & NEGATIVE_WORDS:
        turned = {
            "wanted": [w for w in words if w in ("false", "0", "no")],
            "unwanted": [w for w in words if w in ("true", "1", "yes")],
        }
        yield replace(
            first, labels=turned, means=f"an answer with {path!r} is not wanted", is_sure=False, unknown=()
        )
        yield replace(first, means=f"an answer with {path!r} is wanted", is_sure=False)
        return
    low = bool(set(words_in(path)) & (RANK_WORDS | LOW_WORDS))
    if len(numbers) > (1 if low else 2) and layout == "labelled" and path != "label":
        pairs = Candidate("ratings", {**base, "rating": path}, gather="prompt", is_sure=False)
        for better in ("lower", "higher") if low else ("higher",):
            means = f"of the answers to one prompt the one with the {better[:-2]}est {path!r} is the best"
            yield replace(pairs, better=better, means=means)
    is_rating = bool(set(words_in(path)) & RATING_WORDS)
    if is_rating and numbers == {1.0} and len(words) == 1:
        return  # one star in every row, or wanted: the rows do not say which
    if low and numbers:
        return  # a rank or a loss says nothing of an answer alone, and its high numbers are no thumbs up
    yield first
