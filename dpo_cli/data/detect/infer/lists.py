"""A list of answers to one prompt, with all that may rate or rank them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dpo_cli.data.detect.columns.names import (
    ANSWER_WORDS,
    JUDGE_WORDS,
    LOW_WORDS,
    NEGATIVE_WORDS,
    RANK_WORDS,
    RATING_WORDS,
    by_name,
    is_meta,
    names_in,
    words_in,
)
from dpo_cli.data.detect.columns.profile import Column, Profile
from dpo_cli.data.detect.infer.candidate import Candidate, Names
from dpo_cli.data.detect.label_words import as_number, word

_ORDERED = {"ranking", "ranked", "ranked_responses"}


def lists(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield a list of answers, with all that may rate or rank them."""
    path = _list(profile, given)
    if path is None:
        return
    column = profile.column(path)
    base = {"completions": path}
    if "ratings" in given:
        yield from _directions(Candidate("ratings", {**base, "ratings": given["ratings"]}), given["ratings"])
        return
    if "best" in given:
        yield Candidate("ranking", {**base, "best": given["best"]})
        return
    found = list(_list_ratings(base, column, profile, given))
    found += _best(base, column, profile, given)
    yield from found
    is_ordered = bool(set(names_in(path)[:1]) & _ORDERED)
    if not any(each.is_sure for each in found):
        means = f"the first of {path!r} is the best"
        yield Candidate("ranking", base, means=means, is_sure=is_ordered and not found)


def _directions(candidate: Candidate, path: str) -> Iterator[Candidate]:
    """Yield a reading by a stated rating: both directions where its name says that less may be better."""
    if not set(words_in(path)) & (RANK_WORDS | LOW_WORDS):
        yield candidate
        return
    for better in ("lower", "higher"):
        means = f"the {better[:-2]}est of {path!r} is the best"
        yield replace(candidate, better=better, means=means, is_sure=False)


def _list(profile: Profile, given: Names) -> str | None:
    if "completions" in given:
        return given["completions"]
    lists = [
        p
        for p, column in profile.columns.items()
        if column.is_list and not is_meta(p) and p not in given.values()
    ]
    # A list of texts beside a prompt that is a list too is the turns of one conversation.
    named = by_name("completions", lists) + [p for p in lists if set(words_in(p)) & ANSWER_WORDS]
    return next(iter(named or lists), None)


def _list_ratings(base: Names, column: Column, profile: Profile, given: Names) -> Iterator[Candidate]:
    answers = column.values
    for path, other in profile.columns.items():
        if other.kind not in ("numbers", "flags") or path in given.values():
            continue
        rows = [(a, b) for a, b in zip(answers, other.values, strict=True) if a is not None and b is not None]
        if not rows or any(len(a) != len(b) for a, b in rows):
            continue
        words = set(words_in(path)) | set(names_in(path)[0].split("_"))
        columns = {**base, "ratings": path}
        high = Candidate("ratings", columns, means=f"the highest of {path!r} is the best")
        low = replace(
            high,
            better="lower",
            means=f"the lowest of {path!r} is the best (1 is the first place)",
            is_sure=False,
        )
        if words & (RANK_WORDS | LOW_WORDS):
            yield from (low, replace(high, better="higher", is_sure=False))
        elif words & RATING_WORDS or (
            other.kind == "flags" and words & JUDGE_WORDS and not words & NEGATIVE_WORDS
        ):
            yield high
        elif not is_meta(path):
            yield from (replace(high, is_sure=False), low)


def _best(base: Names, column: Column, profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield columns that name the best of a list, by its place or by its text."""
    answers = column.values
    for path, other in profile.columns.items():
        if (
            other.kind not in ("number", "text")
            or not set(words_in(path)) & JUDGE_WORDS
            or path in given.values()
            or other.top == column.top
        ):
            continue
        rows = [(a, b) for a, b in zip(answers, other.values, strict=True) if a is not None and b is not None]
        if rows and all(b in a for a, b in rows):
            yield Candidate(
                "ranking", {**base, "best": path}, means=f"{path!r} is the text of the best answer"
            )
            continue
        places = [(len(a), as_number(word(b))) for a, b in rows]
        if not rows or any(at is None or at != int(at) or not 0 <= at <= n for n, at in places):
            continue
        from_0 = Candidate(
            "ranking",
            {**base, "best": path},
            means=f"{path!r} is the place of the best answer, counted from 0",
        )
        from_1 = Candidate(
            "ranking",
            {**base, "best": f"{path} - 1"},
            means=f"{path!r} is the place of the best answer, counted from 1",
        )
        has_0, has_n = any(at == 0 for _, at in places), any(at == n for n, at in places)
        if not has_n:
            yield replace(from_0, is_sure=has_0 and any(n > 2 for n, _ in places))
        if not has_0:
            yield replace(from_1, is_sure=has_n)
