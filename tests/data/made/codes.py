"""What a file may say about which of two answers won: words, numbers, flags, names, places."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Say = Callable[[int, str], dict[str, Any]]
"""(row, who won: a, b or tie) -> the columns that say so."""


@dataclass
class Code:
    """A way to name the winner."""

    name: str
    say: Say
    has_ties: bool


WINNERS = [
    "winner",
    "preference",
    "choice",
    "label",
    "labels",
    "verdict",
    "vote",
    "better",
    "preferred",
    "selected",
    "judgment",
    "overall_preference",
    "result",
    "best",
]


def code(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    """Return a way to name the winner of two answers.

    Args:
        rng: draws it.
        names: the columns of the answers.
        numbers: how the names differ: (a, b), (1, 2).
    """
    forms = (
        _words,
        _words,
        _numbers,
        _numbers,
        _flags,
        _models,
        _ids,
        _texts,
        _strengths,
        _losers,
        _votes,
        _signs,
    )
    return rng.choice(forms)(rng, names, numbers)


def _of(name: str, column: str, words: dict[str, Any]) -> Code:
    def say(at: int, won: str) -> dict[str, Any]:
        return {column: words[won]}

    return Code(f"{name} {column}={words}", say, "tie" in words)


def _words(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    one, two = numbers
    tables = [
        {"a": "a", "b": "b"},
        {"a": "A", "b": "B", "tie": "tie"},
        {"a": "model_a", "b": "model_b", "tie": "tie (bothbad)"},
        {"a": "response_a", "b": "response_b", "tie": "tie"},
        {"a": "first", "b": "second", "tie": "equal"},
        {"a": "left", "b": "right", "tie": "same"},
        {"a": names[0], "b": names[1]},
        {"a": names[0], "b": names[1], "tie": "tie"},
        {"a": one, "b": two, "tie": "tie"},
        {"a": f"Response {one}", "b": f"Response {two}"},
        {"a": "A is better", "b": "B is better", "tie": "About the same"},
        {"a": "Option A", "b": "Option B", "tie": None},
    ]
    if numbers[0].isdigit():
        tables = [tables[4], *tables[6:10], tables[6]]
        if numbers == ("0", "1"):
            tables = [table for table in tables if table["a"] not in ("0",)]
    return _of("words", rng.choice(WINNERS), rng.choice(tables))


def _numbers(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    tables: list[dict[str, Any]] = [
        {"a": 1, "b": 2},
        {"a": 1, "b": 2, "tie": 0},
        {"a": -1, "b": 1},
        {"a": 1, "b": -1},
        {"a": -1, "b": 1, "tie": 0},
        {"a": 1, "b": -1, "tie": 0},
        {"a": "1", "b": "2"},
    ]
    if numbers != ("1", "2"):
        tables += [{"a": 0, "b": 1}, {"a": 1, "b": 0}, {"a": 0, "b": 1, "tie": 2}, {"a": 0, "b": 2, "tie": 1}]
    if numbers == ("0", "1"):
        tables = [{"a": 0, "b": 1}]
    column = rng.choice([*WINNERS, "preferred_index", "choice_id", "winner_id", "better_response_id"])
    words = rng.choice(tables)
    if column.endswith(("_id", "_index")):
        words = {"a": 0, "b": 1} if numbers == ("0", "1") or rng.random() < 0.3 else {"a": 1, "b": 2}
    return _of("numbers", column, words)


def _flags(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    one, two = numbers
    first = [f"{names[0]}_is_better", "first_is_better", f"is_{one}_better", f"{one}_wins", f"prefers_{one}"]
    second = [f"{names[1]}_is_better", "second_is_better", f"is_{two}_better"]
    if rng.random() < 0.3:
        yes = rng.random() < 0.5
        return _of("flag", rng.choice(("preference", "label", "better")), {"a": yes, "b": not yes})
    if rng.random() < 0.6:
        return _of("flag", rng.choice(first), {"a": True, "b": False})
    return _of("flag", rng.choice(second), {"a": False, "b": True})


def _pair(rng: random.Random, base: str, numbers: tuple[str, str]) -> tuple[str, str]:
    return f"{base}_{numbers[0]}", f"{base}_{numbers[1]}"


def _models(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    columns = _pair(rng, rng.choice(("model", "source", "system", "policy")), numbers)
    column = rng.choice(("winner", "preferred_model", "winner_model", "chosen_model", "best"))

    def say(at: int, won: str) -> dict[str, Any]:
        models = ("qq-7b", "zz-8b") if at % 2 else ("zz-8b", "qq-7b")
        winner = {"a": models[0], "b": models[1], "tie": "tie"}[won]
        return {columns[0]: models[0], columns[1]: models[1], column: winner}

    return Code(f"models {columns} {column}", say, True)


def _ids(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    columns = _pair(rng, rng.choice(("id", "response_id", "answer_id")), numbers)
    column = rng.choice(("winner_id", "preferred_id", "chosen_id", "best_id"))

    def say(at: int, won: str) -> dict[str, Any]:
        ids = (f"r{2 * at}", f"r{2 * at + 1}")
        return {columns[0]: ids[0], columns[1]: ids[1], column: ids[won == "b"]}

    return Code(f"ids {columns} {column}", say, False)


def _texts(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    column = rng.choice(("winner", "preferred", "best", "best_answer", "preferred_response"))

    def say(at: int, won: str) -> dict[str, Any]:
        return {column: ("text", won)}  # the caller puts the answer here

    return Code(f"text {column}", say, False)


def _strengths(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    column = rng.choice(
        ("preference_strength", "overall_preference", "preference", "rating", "score", "margin_score")
    )
    scale = rng.choice(("signed", "signed", "five", "seven", "float"))
    sign = rng.choice((1, -1))

    def say(at: int, won: str) -> dict[str, Any]:
        side = {"a": -sign, "b": sign, "tie": 0}[won]
        strength = 1 + at // 3 % 3
        if scale == "signed":
            return {column: side * strength}
        if scale == "float":
            return {column: side * strength / 4}
        half = 2 if scale == "five" else 3
        return {
            column: half + 1 + side * (half - at // 2 % half)
        }  # both ends of the scale are chosen by somebody

    return Code(f"strength {column} {scale} {sign}", say, True)


def _losers(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    column = rng.choice(("loser", "worse", "worst", "rejected", "losing_side", "worse_response"))
    one, two = ("A", "B") if not numbers[0].isdigit() else names
    return _of("loser", column, {"a": two, "b": one})


def _votes(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    column = rng.choice(("votes", "labels", "annotations", "preferences"))
    one, two = ("A", "B") if not numbers[0].isdigit() else names

    def say(at: int, won: str) -> dict[str, Any]:
        good, bad = (one, two) if won == "a" else (two, one)
        return {column: [good, bad, good] if at % 2 else [good, good, good]}

    return Code(f"votes {column}", say, False)


def _signs(rng: random.Random, names: tuple[str, str], numbers: tuple[str, str]) -> Code:
    column = rng.choice(("verdict", "judgment", "label", "preference"))

    def say(at: int, won: str) -> dict[str, Any]:
        signs = {"a": ("A>B", "A>>B"), "b": ("B>A", "B>>A"), "tie": ("A=B", "A=B")}
        return {column: signs[won][at // 2 % 2]}

    return Code(f"signs {column}", say, True)
