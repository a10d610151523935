"""What a column says about which of two answers is better: every reading of its words and numbers, sure or only offered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpo_cli.data.detect.columns.names import (
    COUPLES,
    INDEX_WORDS,
    JUDGE_WORDS,
    LOSER_WORDS,
    RATING_WORDS,
    by_name,
    couple_of,
    words_in,
)
from dpo_cli.data.detect.columns.profile import Profile
from dpo_cli.data.detect.infer.candidate import Candidate
from dpo_cli.data.detect.label_words import TIE_WORDS, as_number, guess_winner, word
from dpo_cli.data.formats.winner import WORDS

MANY_WORDS = 24
"""Different words of a column that can still name a winner."""
WIN_WORDS = {
    "winner",
    "win",
    "wins",
    "won",
    "preferred",
    "prefers",
    "better",
    "best",
    "chosen",
    "selected",
    "picked",
}


@dataclass(frozen=True)
class Couple:
    """Two answers that nothing in their names ranks."""

    first: str
    second: str
    numbers: tuple[str, str]
    """How their names tell them apart: (a, b), (0, 1)."""

    @property
    def columns(self) -> dict[str, str]:
        """As the formats call them."""
        return {"answer_a": self.first, "answer_b": self.second}


def winner_columns(couple: Couple, profile: Profile, free: list[str]) -> list[str]:
    """Return columns that may name a winner: by their name, or because all they hold are words for one of two."""
    # An item within items belongs to one of them, unless it is called the winner.
    free = [path for path in free if path.count("[") < 2 or set(words_in(path)) & WIN_WORDS]
    if "[" in couple.first:  # a list of numbers is one for each of its answers
        free = [path for path in free if profile.columns[path].kind not in ("numbers", "flags")]
    named = [path for path in by_name("winner", free) if _has_few_words(path, profile)]
    others = [
        path
        for path in free
        if path not in named
        and set(words_in(path)) & (JUDGE_WORDS | WIN_WORDS | LOSER_WORDS)
        and not set(words_in(path)) & (RATING_WORDS - {"preference"})
        and not _is_about_one(path, couple, free)
        and _has_few_words(path, profile)
        and profile.columns[path].kind in ("text", "number", "flag", "texts")
    ]
    return [*named, *others]


def _is_about_one(path: str, couple: Couple, free: list[str]) -> bool:
    """Return whether a column has a fellow for the other answer: it speaks of one of them."""
    return any(
        (pair := couple_of(path, other) or couple_of(other, path)) and set(pair) == set(couple.numbers)
        for other in free
        if other != path
    )


def _has_few_words(path: str, profile: Profile) -> bool:
    return 0 < len(profile.words_of(path)) <= MANY_WORDS or profile.columns[path].kind == "number"


def says_side(path: str, couple: Couple, profile: Profile) -> bool:
    """Return whether all that a column holds is words for one of two answers, or for neither."""
    words = [text for text in profile.words_of(path) if text not in ("null", "")]
    if not 0 < len(words) <= MANY_WORDS or profile.columns[path].kind not in ("text", "texts"):
        return False
    return not guess_winner(words, (_last(couple.first), _last(couple.second)))[1]


def _last(path: str) -> str:
    """Return a column's own name in its path."""
    return path.rpartition(".")[2]


def winner(path: str, couple: Couple, profile: Profile) -> Iterator[Candidate]:
    """Yield the readings of a column that names a winner, or a loser."""
    words = set(words_in(path))
    is_loser = bool(words & LOSER_WORDS) and not words & WIN_WORDS
    for each in _readings(path, couple, profile):
        yield _of_loser(each, profile) if is_loser else each


def _of_loser(candidate: Candidate, profile: Profile) -> Candidate:
    """Return the reading of a column that names the worse answer."""
    columns, turned = dict(candidate.columns), {"a": "b", "b": "a"}
    labels = {turned.get(name, name): list(texts) for name, texts in candidate.labels.items()}
    if "name_a" in columns:
        columns |= {"name_a": columns["name_b"], "name_b": columns["name_a"]}
    elif not labels:
        words = profile.words_of(columns["winner"])
        labels = {turned.get(text, text): [text] for text in WORDS if text in words}
    means = (
        candidate.means.replace(" won", " lost").replace(" better", " worse").replace("names the", "is the")
    )
    if means == candidate.means:
        means = f"{columns['winner']!r} is of the worse answer: {means}"
    return replace(candidate, columns=columns, labels=labels, means=means)


def _readings(path: str, couple: Couple, profile: Profile) -> Iterator[Candidate]:
    base = Candidate("winner", {**couple.columns, "winner": path})
    named = _by_name_of_one(base, couple, profile)
    if named is not None:
        yield named
        return
    words = [text for text in profile.words_of(path) if text not in ("null", "")]
    empty = [text for text in profile.words_of(path) if text in ("null", "")]
    numbers = {text: number for text in words if (number := as_number(text)) is not None}
    if profile.column(path).kind == "flag" or set(words) <= {"true", "false"}:
        yield from _flags(base, path, couple, empty)
        return
    if not numbers:
        labels, unknown = guess_winner([*words, *empty], (_last(couple.first), _last(couple.second)))
        if all(value in WORDS for value in _each(profile.column(path).values)):
            labels = {}  # the format's own words
        yield replace(
            base, labels=labels, unknown=tuple(unknown), means=f"{path!r} names the better answer in words"
        )
        return
    rest = [text for text in words if text not in numbers]
    ties = [*empty, *(text for text in rest if text in TIE_WORDS)]
    others = tuple(text for text in rest if text not in TIE_WORDS)
    for each in _numbers(base, path, couple, numbers):
        labels = {name: list(texts) for name, texts in each.labels.items()}
        if ties:
            labels["tie"] = [*labels.get("tie", []), *ties]
        yield replace(each, labels=labels, unknown=others)


def _each(values: Sequence[Any]) -> Iterator[Any]:
    """Yield what a column says: of the votes of several people each."""
    for value in values:
        yield from value if isinstance(value, list) else (value,)


def _by_name_of_one(base: Candidate, couple: Couple, profile: Profile) -> Candidate | None:
    """Return the reading in which the winner is named by its model, its id, or its own text."""
    winners = profile.column(base.columns["winner"]).values
    pairs = [(couple.first, couple.second)]
    short = [
        path
        for path, column in profile.columns.items()
        if column.kind in ("text", "number") and column.length < 200
    ]
    # Models may be called a and b where their answers are called 1 and 2.
    pairs += [(a, b) for a in short for b in short if couple_of(a, b) == couple.numbers]
    texts = [path for path in short if profile.columns[path].kind == "text"]
    pairs += [(a, b) for a in texts for b in texts if couple_of(a, b) in COUPLES]
    for first, second in pairs:
        names = list(zip(profile.column(first).values, profile.column(second).values, winners, strict=True))
        rows = [(a, b, won) for a, b, won in names if won not in (None, "") and word(won) not in TIE_WORDS]
        if (
            rows
            and all(a != b and won in (a, b) for a, b, won in rows)
            and {won == a for a, _, won in rows} == {True, False}
        ):
            ties = {word(won) for _, _, won in names if won is None or word(won) in TIE_WORDS}
            columns = {**base.columns, "name_a": first, "name_b": second}
            means = f"{base.columns['winner']!r} holds what stands in {first!r} or {second!r}"
            return replace(base, columns=columns, labels={"tie": sorted(ties)} if ties else {}, means=means)
    return None


def _flags(base: Candidate, path: str, couple: Couple, empty: list[str]) -> Iterator[Candidate]:
    words = set(words_in(path))
    sides = [side for side in couple.numbers if side in words] or [
        side for side in ("first", "second", "a", "b") if side in words
    ]
    first = {"a": ["true"], "b": ["false"], **({"tie": empty} if empty else {})}
    second = {"a": ["false"], "b": ["true"], **({"tie": empty} if empty else {})}
    is_second = bool(sides) and sides[0] in (couple.numbers[1], "second", "b")
    for labels, side, is_likely in ((first, couple.first, not is_second), (second, couple.second, is_second)):
        if not sides or is_likely:
            yield replace(base, labels=labels, means=f"true means that {side!r} won", is_sure=bool(sides))


def _numbers(base: Candidate, path: str, couple: Couple, numbers: Mapping[str, float]) -> Iterator[Candidate]:
    """Yield the readings of a winner that is a number."""
    values = set(numbers.values())
    text = {number: word for word, number in numbers.items()}
    if values <= {1.0, 2.0} and (values == {1.0, 2.0} or couple.numbers == ("1", "2")):
        labels = {"a": [text.get(1.0, "1")], "b": [text.get(2.0, "2")]}
        yield replace(
            base, labels=labels, means="1 is the first answer, 2 the second", is_sure=couple.numbers[0] != "0"
        )
        if couple.numbers[0] == "0":
            yield replace(
                base,
                labels={"a": labels["b"], "b": labels["a"]},
                means="2 is the first answer, 1 the second",
                is_sure=False,
            )
        return
    if values <= {0.0, 1.0}:
        zero, one = text.get(0.0, "0"), text.get(1.0, "1")
        words = set(words_in(path))
        won = replace(
            base, labels={"a": [one], "b": [zero]}, means=f"1 means that {couple.first!r} won", is_sure=False
        )
        index = replace(
            base, labels={"a": [zero], "b": [one]}, means=f"1 means that {couple.second!r} won", is_sure=False
        )
        if couple.numbers == ("0", "1") and words & INDEX_WORDS:
            number = f"{path!r} is the number of the better answer, counted from"
            yield replace(index, means=f"{number} 0", is_sure=0.0 in values)
            if 0.0 not in values:  # ones alone: the first answer, or the second
                yield replace(won, means=f"{number} 1")
        elif couple.numbers[0] in words and couple.numbers[0] not in ("0", "1"):
            yield replace(won, is_sure=True)
        elif couple.numbers[1] in words and couple.numbers[1] not in ("0", "1", "2"):
            yield replace(index, is_sure=True)
        else:
            yield from (won, index)
        return
    yield from _strengths(base, couple, values, text)


def _strengths(
    base: Candidate, couple: Couple, values: set[float], text: Mapping[float, str]
) -> Iterator[Candidate]:
    """Yield both directions of a number that says how much better one answer is."""
    low, high = min(values), max(values)
    if low > 1 and high <= 10 and all(value == int(value) for value in values):
        low = 1.0  # people count from 1, whether or not somebody said it
    middle = 0.0 if low < 0 < high or low == -high else (low + high) / 2
    if values == {0.0, 1.0, 2.0}:
        for a, b, tie in ((1, 2, 0), (0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 0, 2)):
            labels = {"a": [text[a]], "b": [text[b]], "tie": [text[tie]]}
            means = f"{a} is the first answer, {b} the second, {tie} neither"
            yield replace(base, labels=labels, means=means, is_sure=False)
        return
    # From 1 to 4 all, or from 1 to 5 of which nobody chose the last: 3 is a choice, or a tie.
    is_short = low == 1 and high in (4, 6) and middle + 0.5 in values
    for bound in (middle, middle + 0.5) if is_short else (middle,):
        yield from _around(base, couple, values, bound)


def _around(base: Candidate, couple: Couple, values: set[float], middle: float) -> Iterator[Candidate]:
    bound = f"{middle:g}"
    ties = {"tie": [bound]} if middle in values else {}
    for below, above, first, second in (("a", "b", "below", "above"), ("b", "a", "above", "below")):
        labels = {below: [f"<{bound}"], above: [f">{bound}"], **ties}
        means = f"{first} {bound} {couple.first!r} is better, {second} it {couple.second!r}"
        yield replace(base, labels=dict(sorted(labels.items())), means=means, is_sure=False)
