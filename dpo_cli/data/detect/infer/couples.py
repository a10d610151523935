"""Two answers that are numbered, with all that may tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dpo_cli.data.detect.columns.names import (
    ANSWER_WORDS,
    COUPLES,
    LOW_WORDS,
    RANK_WORDS,
    RATING_WORDS,
    couple_of,
    is_meta,
    words_in,
)
from dpo_cli.data.detect.columns.profile import Profile
from dpo_cli.data.detect.infer.candidate import Candidate, Names
from dpo_cli.data.detect.infer.winners import WIN_WORDS, Couple, says_side, winner, winner_columns
from dpo_cli.data.detect.label_words import as_number, word

FEW = 3
"""Different words of a column that may name one of two answers, or neither."""


def find_couple(profile: Profile, given: Names) -> Couple | None:
    """Return the two numbered answers of a file: whole conversations before what was drawn from them, then the longer texts."""
    if "answer_a" in given and "answer_b" in given:
        first, second = given["answer_a"], given["answer_b"]
        return Couple(first, second, couple_of(first, second) or ("a", "b"))
    free = [
        p
        for p in profile.columns
        if profile.columns[p].kind in ("text", "turns", "texts", "exchanges") and not is_meta(p)
    ]
    found = []
    for first in free:
        for second in free:
            numbers = couple_of(first, second)
            if numbers is None or numbers not in COUPLES or profile.is_word(first):
                continue
            if {given.get("answer_a", first), given.get("answer_b", second)} - {first, second}:
                continue
            found.append(Couple(first, second, numbers))
    named = [
        c
        for c in found
        if set(words_in(c.first)) - {c.numbers[0]} & ANSWER_WORDS
        or not set(words_in(c.first)) - {c.numbers[0]}
    ]
    # Whole conversations before what was drawn from them, then the longer texts.
    rank = sorted(
        named or found,
        key=lambda c: (profile.columns[c.first].kind != "turns", -profile.columns[c.first].length),
    )
    if not rank or (given.keys() & {"completions", "completion", "messages", "text"}):
        return None
    is_of_list = "[" in rank[0].first and "answer_a" not in given
    if is_of_list and not any(each.format == "winner" for each in _named(rank[0], profile, given)):
        return None  # a list that always has two, unless something names one of them
    return rank[0]


def judged(couple: Couple, profile: Profile, given: Mapping[str, str]) -> list[Candidate]:
    """Return how two answers could be ranked.

    Args:
        couple: the answers.
        profile: the file.
        given: columns that are stated.
    """
    if "winner" in given:
        return [_stated(each, "winner", given) for each in winner(given["winner"], couple, profile)]
    if "wins_a" in given or "rating_a" in given:
        layout = "winner" if "wins_a" in given else "rated_pair"
        names = ("wins_a", "wins_b") if layout == "winner" else ("rating_a", "rating_b")
        if all(name in given for name in names):
            base = Candidate(layout, {**couple.columns, **{name: given[name] for name in names}})
            if layout == "winner" or not set(words_in(given["rating_a"])) & (RANK_WORDS | LOW_WORDS):
                return [base]
            told = ((better, f"the {better} rating is better") for better in ("lower", "higher"))
            return [replace(base, better=better, means=means, is_sure=False) for better, means in told]
    free = _free(couple, profile, given)
    return _named(couple, profile, given) or [
        *_unnamed(couple, profile, free),
        *_unnamed_rates(couple, profile, free),
    ]


def _free(couple: Couple, profile: Profile, given: Mapping[str, str]) -> list[str]:
    return [path for path in profile.columns if path not in (couple.first, couple.second, *given.values())]


def _named(couple: Couple, profile: Profile, given: Mapping[str, str]) -> list[Candidate]:
    """Return what columns say whose names are those of a winner, of flags or of ratings."""
    free = _free(couple, profile, given)
    found = [
        *_one_hot(couple, profile, free),
        *_rated(couple, profile, free),
        *_listed(couple, profile, free),
    ]
    for path in winner_columns(couple, profile, free):
        found += winner(path, couple, profile)
    # Prose about the answers is no winner where another column's words are all understood.
    return [each for each in found if not each.unknown] or found


def _unnamed(couple: Couple, profile: Profile, free: list[str]) -> Iterator[Candidate]:
    """Yield what any other column of a few words would say, if it named the better answer."""
    for path in free:
        kind, words = profile.columns[path].kind, set(words_in(path))
        is_short = kind in ("number", "flag") or profile.is_word(path) or says_side(path, couple, profile)
        is_strength = kind == "number" and words & RATING_WORDS  # how much better one of them is
        if (is_short and len(profile.words_of(path)) <= FEW and not is_meta(path)) or is_strength:
            readings = (each for each in winner(path, couple, profile) if not each.unknown)
            yield from (replace(each, is_sure=False) for each in readings)


def _unnamed_rates(couple: Couple, profile: Profile, free: list[str]) -> Iterator[Candidate]:
    """Yield both directions of any numbers, one for each answer, that may rate them."""
    for first, second in _fellows(couple, profile, free):
        if is_meta(first) or profile.columns[first].kind == "flag":
            continue
        columns = {**couple.columns, "rating_a": first, "rating_b": second}
        for better in ("higher", "lower"):
            means = f"the {better} {first!r} or {second!r} is better"
            yield Candidate("rated_pair", columns, better=better, means=means, is_sure=False)


def _stated(candidate: Candidate, _name: str, given: Mapping[str, str]) -> Candidate:
    return replace(candidate, columns={**candidate.columns, **given})


def _fellows(
    couple: Couple, profile: Profile, free: list[str], *, is_any: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield columns of numbers, one for each answer: those that are numbered as the answers are, or numbered at all."""
    numeric = [path for path in free if profile.columns[path].kind in ("number", "flag")]
    for first in numeric:
        for second in numeric:
            numbers = couple_of(first, second) if first != second else None
            if numbers == couple.numbers or (is_any and numbers in COUPLES):
                yield first, second


def _one_hot(couple: Couple, profile: Profile, free: list[str]) -> Iterator[Candidate]:
    """Yield columns of 0 and 1, one for each answer, of which never both are 1."""
    for first, second in _fellows(couple, profile, free, is_any=True):
        if not set(words_in(first)) & WIN_WORDS:
            continue
        rows = [
            (_flag(a), _flag(b))
            for a, b in zip(profile.columns[first].values, profile.columns[second].values, strict=True)
        ]
        if all(a in (0.0, 1.0, None) and b in (0.0, 1.0, None) and (a or 0) + (b or 0) <= 1 for a, b in rows):
            others = [p for p in free if p not in (first, second) and set(words_in(p)) >= {"winner", "tie"}]
            yield Candidate(
                "winner",
                {**couple.columns, "wins_a": first, "wins_b": second},
                ignore=tuple(others),
                means=f"{first!r} is 1 where {couple.first!r} won",
            )


def _flag(value: object) -> float | None:
    if isinstance(value, bool):
        return float(value)
    text = word(value)
    return {"true": 1.0, "false": 0.0}.get(text, as_number(text)) if text not in ("null", "") else None


def _rated(couple: Couple, profile: Profile, free: list[str]) -> Iterator[Candidate]:
    """Yield ratings, one for each answer."""
    for first, second in _fellows(couple, profile, free):
        words = set(words_in(first))
        if (
            profile.columns[first].kind == "flag"
            or (is_meta(first) and not words & (RATING_WORDS | RANK_WORDS))
            or "ratio" in words
        ):
            continue
        yield from _by_rates(couple, first, second, words)


def _listed(couple: Couple, profile: Profile, free: list[str]) -> Iterator[Candidate]:
    """Yield lists of two ratings, in the order of the answers."""
    for path in free:
        column = profile.columns[path]
        is_two = column.kind == "numbers" and all(len(value) == 2 for value in column.given)
        if is_two and "[" not in couple.first + path:
            yield from _by_rates(couple, f"{path}[0]", f"{path}[1]", set(words_in(path)))


def _by_rates(couple: Couple, first: str, second: str, words: set[str]) -> Iterator[Candidate]:
    """Yield the readings of a number for each answer: by the words of its name one, or both directions."""
    columns = {**couple.columns, "rating_a": first, "rating_b": second}
    high = Candidate("rated_pair", columns, means=f"the higher {first!r} or {second!r} is better")
    if words & (RANK_WORDS | LOW_WORDS):
        means = f"the lower {first!r} or {second!r} is better"
        yield replace(high, better="lower", means=means, is_sure=False)
        yield replace(high, better="higher", is_sure=False)
    elif words & RATING_WORDS:
        yield high
