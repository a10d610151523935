"""Two answers that nothing in their names ranks, and columns that do."""

from __future__ import annotations

import random
from typing import Any

from tests.data.made.base import TURN_WORDS, Made, answer, count, turn
from tests.data.made.codes import code
from tests.data.made.prompts import extras, prompts, talk

COUPLES = (
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
    ("Response A", "Response B"),
    ("output_1", "output_2"),
    ("response_1", "response_2"),
    ("answer1", "answer2"),
    ("response1", "response2"),
    ("response_0", "response_1"),
    ("answer_0", "answer_1"),
    ("summary_1", "summary_2"),
    ("left", "right"),
    ("response_left", "response_right"),
    ("first_answer", "second_answer"),
    ("candidate_a", "candidate_b"),
    ("text_a", "text_b"),
    ("assistant_a", "assistant_b"),
    ("option_a", "option_b"),
    ("generation_1", "generation_2"),
    ("human_ref_A", "human_ref_B"),
    ("answer_x", "answer_y"),
    ("responseA", "responseB"),
    ("model_a_response", "model_b_response"),
    ("gen_a", "gen_b"),
)


def numbers_of(first: str, second: str) -> tuple[str, str]:
    """Return the parts in which two names differ, in small letters."""
    at = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    for one, two in (("left", "right"), ("first", "second")):
        if one in first and two in second:
            return one, two
    return first[at].casefold(), second[at].casefold()


def winners(rng: random.Random, n: int, has_ties: bool) -> list[str]:
    """Return who wins in each row: each of two about as often, and a few ties."""
    found = ["ab"[(at + rng.randint(0, 1)) % 2] for at in range(n)]
    found[0], found[1] = "a", "b"
    if has_ties:
        for at in range(4, n, 5):
            found[at] = "tie"
    return found


def couple(rng: random.Random, at: int, won: str) -> tuple[str, str]:
    """Return two answers, of which the winner is the better one."""
    if won == "tie":
        return answer(rng, at, 0, "Tin") + " (1)", answer(rng, at, 0, "Tin") + " (2)"
    good, bad = answer(rng, at, 1), answer(rng, at, 0)
    return (good, bad) if won == "a" else (bad, good)


def _filled(columns: dict[str, Any], pair: tuple[Any, Any]) -> dict[str, Any]:
    return {
        name: pair[value[1] == "b"] if isinstance(value, tuple) else value for name, value in columns.items()
    }


def flat(rng: random.Random) -> Made:
    """Return rows of a prompt, two texts and what names the better one, also as a table."""
    n, names = count(rng), rng.choice(COUPLES)
    numbers = numbers_of(*names)
    said = code(rng, names, numbers)
    is_table = rng.random() < 0.2
    asked, more = prompts(rng, is_text=is_table), extras(rng, n)
    beside = rng.choice((None, None, "length", "n_chars", "model"))
    if "models" in said.name or "votes" in said.name or is_table:
        beside = None
    made = Made("votes", [], {}, {}, details=[asked.name, *names, said.name, str(beside)])
    made.suffix = ".csv" if is_table and "votes" not in said.name else rng.choice((".jsonl", ".json"))
    for at, won in enumerate(winners(rng, n, said.has_ties)):
        columns, texts = asked.put(at)
        pair = couple(rng, at, won)
        row = {
            **columns,
            names[0]: pair[0],
            names[1]: pair[1],
            **_filled(said.say(at, won), pair),
            **more[at],
        }
        if beside:
            values = ("x-7b", "y-8b") if beside == "model" else (len(pair[0]), len(pair[1]))
            row |= {f"{beside}_{side}": value for side, value in zip(numbers, values, strict=True)}
        made.rows.append(row)
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def nested(rng: random.Random) -> Made:
    """Return rows whose two answers are in a list or an object."""
    n, how = count(rng), rng.choice(("list", "objects", "named", "sides"))
    names, numbers = ("response_a", "response_b"), ("a", "b")
    top = rng.choice(("responses", "answers", "candidates", "completions", "outputs"))
    inner = rng.choice(("text", "response", "content"))
    if how in ("list", "objects"):
        column = rng.choice(("choice", "preferred_index", "best_idx", "label", "winner"))
        from_one = rng.random() < 0.3
    else:
        said = code(rng, names, numbers)
    asked, more = prompts(rng), extras(rng, n)
    details = [asked.name, how, top, inner]
    details.append(f"{column} from {int(from_one)}" if how in ("list", "objects") else said.name)
    made = Made("nested votes", [], {}, {}, details=details)
    has_ties = how not in ("list", "objects") and said.has_ties
    for at, won in enumerate(winners(rng, n, has_ties)):
        columns, texts = asked.put(at)
        pair = couple(rng, at, won)
        each = {
            "list": {top: list(pair)},
            "objects": {top: [{inner: text, "model": f"m{k}"} for k, text in enumerate(pair)]},
            "named": {top: {"a": pair[0], "b": pair[1]}},
            "sides": {"a": {inner: pair[0]}, "b": {inner: pair[1]}},
        }[how]
        if how in ("list", "objects"):
            each[column] = "ab".index(won) + from_one
        else:
            each |= _filled(said.say(at, won), pair)
        made.rows.append({**columns, **each, **more[at]})
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def conversations(rng: random.Random) -> Made:
    """Return rows of two whole conversations and a winner."""
    n, words = count(rng), rng.choice(TURN_WORDS)
    names = rng.choice(
        (
            ("conversation_a", "conversation_b"),
            ("messages_a", "messages_b"),
            ("chat_1", "chat_2"),
            ("dialogue_1", "dialogue_2"),
        )
    )
    said = code(rng, names, numbers_of(*names))
    while said.name.startswith("text"):
        said = code(rng, names, numbers_of(*names))
    more = extras(rng, n)
    made = Made("votes on conversations", [], {}, {}, details=[*names, said.name])
    for at, won in enumerate(winners(rng, n, said.has_ties)):
        turns, texts = talk(rng, at, words)
        pair = couple(rng, at, won)
        talks = [[*turns, turn(rng, "assistant", text, words)] for text in pair]
        made.rows.append({names[0]: talks[0], names[1]: talks[1], **said.say(at, won), **more[at]})
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


RATES = (
    ("score", 1), ("rating", 1), ("reward", 1), ("upvotes", 1), ("quality", 1), ("helpfulness", 1), ("overall_score", 1),
    ("rank", -1), ("rank", 1), ("ranking", -1), ("place", -1), ("loss", -1), ("perplexity", -1), ("error", -1), ("toxicity", -1),
    ("votes", 1), ("win_rate", 1), ("grade", 1), ("human_rating", 1), ("elo", 1), ("position", -1),
)  # fmt: skip


def rated(rng: random.Random) -> Made:
    """Return rows of two answers with a number for each."""
    n, names = count(rng), rng.choice(COUPLES)
    numbers, (rate, sign) = numbers_of(*names), rng.choice(RATES)
    columns = [f"{rate}_{side}" for side in numbers]
    if rng.random() < 0.3:
        columns = [f"{name}_{rate}" for name in names]
    asked, more = prompts(rng), extras(rng, n)
    has_ties = rate not in ("rank", "ranking", "place", "position") and rng.random() < 0.3
    as_text = rng.random() < 0.1
    made = Made(
        "two answers, a number for each", [], {}, {}, details=[asked.name, *names, *columns, str(sign)]
    )
    for at, won in enumerate(winners(rng, n, has_ties)):
        asks, texts = asked.put(at)
        pair = couple(rng, at, won)
        if rate in ("rank", "ranking", "place", "position"):
            levels = (1, 2) if sign < 0 else (2, 1)
        else:
            low = rng.randint(1, 4)
            levels = (low, low + rng.randint(1, 5)) if sign < 0 else (low + rng.randint(1, 5), low)
        rates = levels if won == "a" else levels[::-1] if won == "b" else (3, 3)
        values = [str(value) if as_text else value for value in rates]
        row = {**asks, names[0]: pair[0], names[1]: pair[1], columns[0]: values[0], columns[1]: values[1]}
        made.rows.append({**row, **more[at]})
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def one_hot(rng: random.Random) -> Made:
    """Return rows of two answers with a flag for each, and perhaps one for a tie."""
    n, names = count(rng), rng.choice(COUPLES)
    numbers = numbers_of(*names)
    base = rng.choice(
        ("winner_model_{}", "{}_wins", "wins_{}", "winner_{}", "preferred_{}", "is_{}_better", "{}_chosen")
    )
    columns, is_flag, has_ties = (
        [base.format(side) for side in numbers],
        rng.random() < 0.4,
        rng.random() < 0.5,
    )
    asked, more = prompts(rng), extras(rng, n)
    made = Made("one-hot", [], {}, {}, details=[asked.name, *names, *columns, str(is_flag)])
    for at, won in enumerate(winners(rng, n, has_ties)):
        asks, texts = asked.put(at)
        pair = couple(rng, at, won)
        flags = {columns[0]: won == "a", columns[1]: won == "b"}
        if has_ties:
            flags["winner_tie"] = won == "tie"
        flags = flags if is_flag else {name: int(value) for name, value in flags.items()}
        made.rows.append({**asks, names[0]: pair[0], names[1]: pair[1], **flags, **more[at]})
        made.answers[at], made.contexts[at] = list(pair), texts
    return made
