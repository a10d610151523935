"""Preference files made from a seed, in the names, codes and shapes that public sets and labelling tools use, with what they say.

An answer's text states its worth; a text of the context names its item. So every reading can be checked against the text itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
COUPLES = [
    ("response_a", "response_b"),
    ("answer_1", "answer_2"),
    ("output_0", "output_1"),
    ("response_left", "response_right"),
    ("Response A", "Response B"),
    ("completion_a", "completion_b"),
    ("summary1", "summary2"),
    ("first_response", "second_response"),
]
SINGLE_PROMPTS = ["prompt", "question", "instruction", "query", "user_prompt", "input", "request"]
PAIRS = [
    ("chosen", "rejected"),
    ("preferred", "dispreferred"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
    ("response_chosen", "response_rejected"),
    ("accepted", "rejected"),
    ("y_w", "y_l"),
    ("positive", "negative"),
    ("winner", "loser"),
    ("good", "bad"),
]


@dataclass
class Item:
    """A prompt and its answers."""

    number: int
    rng: random.Random
    contexts: list[str] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)
    """Texts and their worth, in the order of the file."""

    def context(self, what: str) -> str:
        """Return a new text that the prompt must hold."""
        self.contexts.append(
            f"{what.capitalize()} of item {self.number}: please say something sensible about it."
        )
        return self.contexts[-1]

    def answer_with(self, worths: Sequence[int]) -> list[str]:
        """Make an answer of each worth; return the texts."""
        for worth in worths:
            filler = " ".join(["well"] * self.rng.randint(1, 9))
            self.answers.append(
                (f"Reply {self.number}.{len(self.answers)} {filler}, of worth {worth}.", worth)
            )
        return [text for text, _ in self.answers[-len(worths) :]]

    @property
    def texts(self) -> list[str]:
        """The answers."""
        return [text for text, _ in self.answers]

    @property
    def worths(self) -> list[int]:
        """What they are worth."""
        return [worth for _, worth in self.answers]


@dataclass
class Made:
    """A file and what it says."""

    rows: list[Row]
    items: list[Item]
    what: str
    ties: int = 0
    """Items whose answers are equally good."""
    is_single: bool = False
    """Whether every row has one answer."""


def made(seed: int) -> Made:
    """Return the file of a seed."""
    rng = random.Random(seed)
    shape = rng.choice([_pairs, _couple, _couple, _couple, _list, _objects, _singles, _talks, _two_talks])
    items = [Item(number, random.Random(f"{seed}/{number}")) for number in range(rng.randint(8, 14))]
    file = shape(rng, items)
    noise = _noise(rng)
    order: list[str] = []
    for number, row in enumerate(file.rows):
        row.update({name: value(number) for name, value in noise.items() if name not in row})
        order = order or rng.sample(list(row), len(row))
    if rng.random() < 0.1:
        outer = rng.choice(["data", "sample", "example"])
        file.rows = [{"uid": f"u{number}", outer: row} for number, row in enumerate(file.rows)]
        file.what += f", all in {outer}"
        return file
    file.rows = [{name: row[name] for name in [*order, *row] if name in row} for row in file.rows]
    file.rows = [dict(row) for row in file.rows]
    return file


def _prompts(rng: random.Random) -> tuple[str, Callable[[Item], Row]]:
    """Return how a file has what is asked."""
    single = rng.choice(SINGLE_PROMPTS)
    inner = rng.choice([("title", "post"), ("title", "body")])
    document = rng.choice(["context", "passage", "document", "article", "background"])
    history = rng.choice(["history", "context", "previous_messages", "chat_history", "conversation"])
    unusual = rng.choice(["persona", "scenario", "evidence", "story", "excerpt", "knowledge", "situation"])
    turns = rng.choice(["prompt", "messages", "conversation", "context", "input"])
    role, content = rng.choice([("role", "content"), ("from", "value")])
    asker = {"role": "user", "from": "human"}[role]
    helper = {"role": "assistant", "from": "gpt"}[role]

    def talk(item: Item, last: bool) -> list[Row]:
        said = [{role: asker, content: item.context("start")}, {role: helper, content: item.context("reply")}]
        return [*said, {role: asker, content: item.context("end")}] if last else said

    kinds: list[tuple[str, Callable[[Item], Row]]] = [
        (single, lambda item: {single: item.context("question")}),
        (single, lambda item: {single: item.context("question")}),
        (
            "instruction+input",
            lambda item: {"instruction": item.context("instruction"), "input": item.context("input")},
        ),
        ("+".join(inner), lambda item: {inner[0]: item.context("title"), inner[1]: item.context("body")}),
        (
            f"{document}+question",
            lambda item: {document: item.context("document"), "question": item.context("question")},
        ),
        (f"{history}+prompt", lambda item: {history: talk(item, False), "prompt": item.context("prompt")}),
        (f"turns in {turns}", lambda item: {turns: talk(item, True)}),
        (
            f"JSON in {turns}",
            lambda item: {turns: json.dumps([{role: asker, content: item.context("question")}])},
        ),
        ("system", lambda item: {"system": item.context("system"), single: item.context("question")}),
        (
            f"{unusual}+question",
            lambda item: {unusual: item.context(unusual), "question": item.context("question")},
        ),
        ("nested", lambda item: {"info": {"id": f"x{item.number}", "post": item.context("post")}}),
    ]
    return rng.choice(kinds)


def _noise(rng: random.Random) -> dict[str, Callable[[int], Any]]:
    """Return columns that say nothing about preference or context."""
    every: dict[str, Callable[[int], Any]] = {
        "id": lambda n: f"row-{n}",
        "idx": lambda n: n,
        "source": lambda n: ["forum", "exam"][n % 2],
        "language": lambda n: "en",
        "created_at": lambda n: f"2024-05-{n + 1:02d}",
        "dataset": lambda n: "made",
        "num_tokens": lambda n: 40 + n,
        "category": lambda n: ["science", "cooking", "law"][n % 3],
        "annotator_id": lambda n: n % 4,
        "url": lambda n: f"https://example.org/{n}",
    }
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(0, 3))}


def _pairs(rng: random.Random, items: list[Item]) -> Made:
    """A better answer beside a worse one, by name; as text, or as a message."""
    what, prompt = _prompts(rng)
    chosen, rejected = rng.choice(PAIRS)
    wrap = rng.choice(["text", "text", "turns", "turn"])
    scores = rng.choice(
        [None, None, ("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating")]
    )

    def as_it_is(text: str) -> Any:
        turn = {"role": "assistant", "content": text}
        return {"text": text, "turns": [turn], "turn": turn}[wrap]

    rows = []
    for item in items:
        row = prompt(item)
        better, worse = item.answer_with([2, 1])
        row |= {chosen: as_it_is(better), rejected: as_it_is(worse)}
        if scores:
            row |= {scores[0]: 7.5 + item.number % 2, scores[1]: 3.0}
        rows.append(row)
    return Made(rows, items, f"pairs {chosen}/{rejected} as {wrap}, {what}, scores {scores}")


def _couple(rng: random.Random, items: list[Item]) -> Made:
    """Two numbered answers, and columns that say which is better."""
    what, prompt = _prompts(rng)
    first, second = rng.choice(COUPLES)
    name, code = rng.choice(list(_codes(rng, first, second)))
    has_ties = rng.random() < 0.3
    rows, ties = [], 0
    for item in items:
        row = prompt(item)
        won = item.rng.choice([0, 1])
        if item.number < 2:
            won = item.number  # both occur
        judged = code(won)
        if has_ties and item.number % 5 == 4 and (tied := code(None)) is not None:
            judged, won, ties = tied, -1, ties + 1
        worths = [2, 1] if won == 0 else [1, 2] if won == 1 else [1, 1]
        one, other = item.answer_with(worths)
        rows.append(row | {first: one, second: other} | judged)
    return Made(rows, items, f"couple {first}, {name}, {what}, ties {ties}", ties)


def _codes(
    rng: random.Random, first: str, second: str
) -> Iterator[tuple[str, Callable[[int | None], Row | None]]]:
    """Yield ways to say which of two answers won; what they return for None is a tie, None where they know none."""
    name = rng.choice(["winner", "preference", "preferred", "label", "choice", "better_response", "verdict"])
    a, b = ("a", "b") if rng.random() < 0.5 else ("A", "B")
    parts = zip(re.split("[_ ]", first), re.split("[_ ]", second), strict=True)
    one, two = next((a, b) for a, b in parts if a != b)
    tie = rng.choice(["tie", "both", "equal"])

    def words(x: Any, y: Any, none: Any = None) -> Callable[[int | None], Row | None]:
        return lambda won: (
            None if won is None and none is None else {name: none if won is None else [x, y][won]}
        )

    yield f"{name}: {a}/{b}", words(a, b, tie)
    yield f"{name}: model_a/model_b", words("model_a", "model_b", tie)
    yield f"{name}: column names", words(first, second)
    yield f"{name}: last words", words(one, two)
    yield f"{name}: 0/1", words(0, 1)
    yield f"{name}: 1/2", words(1, 2)
    yield f"{name}: 1/0", words(1, 0)
    yield f"{name}: 1/-1", words(1, -1, 0)
    yield f"{name}: -1/1", words(-1, 1, 0)
    yield f"{name}: true/false", words(True, False)
    yield f"{name}: false/true", words(False, True)
    yield "overall_preference", lambda won: {"overall_preference": 0 if won is None else [-2, 3][won]}
    yield (
        "one-hot",
        lambda won: {
            "winner_model_a": int(won == 0),
            "winner_model_b": int(won == 1),
            "winner_tie": int(won is None),
        },
    )
    ratings = rng.choice([("score_a", "score_b"), ("rating_1", "rating_2"), ("reward_0", "reward_1")])
    pair = _like(first, second, ratings)
    yield f"{pair}", lambda won: {pair[0]: 4 if won == 0 else 2, pair[1]: 4 if won == 1 else 2}
    ranks = _like(first, second, ("rank_a", "rank_b"))
    yield (
        f"{ranks}",
        lambda won: None if won is None else {ranks[0]: 1 + int(won != 0), ranks[1]: 1 + int(won != 1)},
    )
    losses = _like(first, second, ("loss_a", "loss_b"))
    yield f"{losses}", lambda won: {losses[0]: 0.5 if won == 0 else 1.5, losses[1]: 0.5 if won == 1 else 1.5}
    yield (
        "model names",
        lambda won: (
            None if won is None else {"model_a": "opal", "model_b": "onyx", "winner": ["opal", "onyx"][won]}
        ),
    )


def _like(first: str, second: str, names: tuple[str, str]) -> tuple[str, str]:
    """Return names that number their columns as two answers do."""
    stem = names[0].split("_")[0]
    for a, b in (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("A", "B")):
        if first.replace(a, "") == second.replace(b, ""):
            return f"{stem}_{a}", f"{stem}_{b}"
    return names


def _worths(item: Item, n: int) -> list[int]:
    worths = list(range(1, n + 1))
    item.rng.shuffle(worths)
    return worths


def _list(rng: random.Random, items: list[Item]) -> Made:
    """A list of answers, and a list of scores or ranks, or the place of the best."""
    what, prompt = _prompts(rng)
    name = rng.choice(["responses", "answers", "completions", "candidates", "outputs"])
    judge = rng.choice(["scores", "ratings", "rewards", "ranks", "ranking"])
    n = rng.randint(2, 4)
    rows = []
    for item in items:
        row = prompt(item)
        worths = _worths(item, n)
        values = (
            [n + 1 - worth for worth in worths]
            if judge in ("ranks", "ranking")
            else [2.0 * w for w in worths]
        )
        rows.append(row | {name: item.answer_with(worths), judge: values})
    return Made(rows, items, f"list {name} of {n}, {judge}, {what}")


def _objects(rng: random.Random, items: list[Item]) -> Made:
    """A list of answers as objects with a score or a rank."""
    what, prompt = _prompts(rng)
    name = rng.choice(["answers", "responses", "completions", "summaries", "candidates"])
    text = rng.choice(["text", "answer", "response", "content", "body"])
    judge = rng.choice(["score", "rating", "rank", "pm_score", "overall_score"])
    n = rng.randint(2, 4)
    rows = []
    for item in items:
        row = prompt(item)
        worths = _worths(item, n)
        values = [n + 1 - worth if judge == "rank" else 1.5 * worth for worth in worths]
        listed = [
            {text: said, judge: value, "model": f"m{place}"}
            for place, (said, value) in enumerate(zip(item.answer_with(worths), values, strict=True))
        ]
        rows.append(row | {name: listed})
    return Made(rows, items, f"objects {name}[].{text}, {judge}, {what}")


def _singles(rng: random.Random, items: list[Item]) -> Made:
    """One answer a row, with a thumb, a word, or stars; better and worse rows of one prompt lie together or apart."""
    what, prompt = _prompts(rng)
    name = rng.choice(["response", "completion", "answer", "output"])
    judge, good, bad = rng.choice(
        [
            ("label", True, False),
            ("label", 1, 0),
            ("thumbs_up", True, False),
            ("feedback", "good", "bad"),
            ("rating", 5, 1),
            ("score", 0.9, 0.1),
            ("vote", "up", "down"),
            ("is_good", 1, 0),
        ]
    )
    rows = []
    for item in items:
        row = prompt(item)
        worths = [2, 1] if item.rng.random() < 0.5 else [1, 2]
        for text, worth in zip(item.answer_with(worths), worths, strict=True):
            rows.append({**row, name: text, judge: good if worth == 2 else bad})
    return Made(rows, items, f"singles {name}, {judge} {good}/{bad}, {what}", is_single=True)


def _conversation(item: Item, answer: str, keys: tuple[str, str, str, str]) -> list[Row]:
    role, content, asker, helper = keys
    said = [{role: asker, content: item.contexts[0]}]
    if len(item.contexts) > 1:
        said += [{role: helper, content: item.contexts[1]}, {role: asker, content: item.contexts[2]}]
    return [*said, {role: helper, content: answer}]


def _keys(rng: random.Random) -> tuple[str, str, str, str]:
    return rng.choice([("role", "content", "user", "assistant"), ("from", "value", "human", "gpt")])


def _talks(rng: random.Random, items: list[Item]) -> Made:
    """Two whole conversations, or transcripts, called chosen and rejected; with or without a prompt beside them."""
    keys, is_long = _keys(rng), rng.random() < 0.5
    chosen, rejected = rng.choice(
        [("chosen", "rejected"), ("chosen_messages", "rejected_messages"), ("preferred", "dispreferred")]
    )
    is_text, has_prompt = rng.random() < 0.3, rng.random() < 0.4
    rows = []
    for item in items:
        for what in ("start", "reply", "end") if is_long else ("start",):
            item.context(what)
        better, worse = item.answer_with([2, 1])
        talks = [_conversation(item, text, keys) for text in (better, worse)]
        values = [_transcript(talk, keys) for talk in talks] if is_text else talks
        rows.append(
            {chosen: values[0], rejected: values[1]} | ({"prompt": item.contexts[0]} if has_prompt else {})
        )
    return Made(
        rows,
        items,
        f"conversations {chosen}/{rejected} {keys}, long {is_long}, text {is_text}, prompt {has_prompt}",
    )


def _transcript(talk: list[Row], keys: tuple[str, str, str, str]) -> str:
    role, content, asker, _ = keys
    return "".join(f"\n\n{'Human' if turn[role] == asker else 'Assistant'}: {turn[content]}" for turn in talk)


def _two_talks(rng: random.Random, items: list[Item]) -> Made:
    """Two whole conversations and a winner."""
    keys = _keys(rng)
    words = rng.choice([("model_a", "model_b"), ("a", "b"), ("conversation_a", "conversation_b")])
    rows, ties = [], 0
    for item in items:
        item.context("start")
        won = item.number if item.number < 2 else item.rng.choice([0, 1, 2])
        worths = [[2, 1], [1, 2], [1, 1]][won]
        ties += won == 2
        one, other = (_conversation(item, text, keys) for text in item.answer_with(worths))
        judged = [*words, "tie (bothbad)" if item.number % 2 else "tie"][won]
        rows.append(
            {
                "model_a": "opal",
                "model_b": "onyx",
                "winner": judged,
                "conversation_a": one,
                "conversation_b": other,
            }
        )
    return Made(rows, items, f"two conversations {keys}, {words}", ties)
