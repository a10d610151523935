"""What is asked, in every form in which files have it: one column, several, nested, turns, JSON as text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.data.made.base import TURN_WORDS, Row, context, question, turn

NAMES = [
    "prompt",
    "question",
    "instruction",
    "query",
    "input",
    "user_prompt",
    "user_message",
    "message",
    "problem",
    "request",
    "ask",
    "x",
    "Prompt",
    "post",
    "Question",
    "original_prompt",
    "user_query",
    "question_text",
    "prompt_text",
    "task",
    "user_input",
    "src",
]
PARTS = (
    ("instruction", "input"),
    ("title", "post"),
    ("title", "body"),
    ("context", "question"),
    ("passage", "question"),
    ("document", "question"),
    ("article", "question"),
    ("background", "query"),
    ("persona", "prompt"),
    ("schema", "question"),
    ("story", "question"),
    ("evidence", "prompt"),
    ("knowledge", "query"),
    ("scenario", "question"),
    ("product_page", "prompt"),
    ("facts", "instruction"),
    ("notes", "question"),
    ("source_text", "instruction"),
    ("code_context", "instruction"),
)


@dataclass
class Prompts:
    """The prompts of a file."""

    name: str
    put: Callable[[int], tuple[Row, list[str]]]
    """Prompt -> its columns, and the texts in them."""


def prompts(rng: random.Random, *, is_text: bool = False) -> Prompts:
    """Return one form of prompts.

    Args:
        rng: draws it.
        is_text: only columns of text.
    """
    forms = [_one, _one, _one, _two, _two, _with_system]
    if not is_text:
        forms += [_nested, _turns, _history, _spelled]
    return rng.choice(forms)(rng)


def _one(rng: random.Random) -> Prompts:
    name = rng.choice(NAMES)

    def put(at: int) -> tuple[Row, list[str]]:
        text = question(rng, at)
        return {name: text}, [text]

    return Prompts(name, put)


def _two(rng: random.Random) -> Prompts:
    first, second = rng.choice(PARTS)
    is_rare = (first, second) == ("instruction", "input") and rng.random() < 0.5

    def put(at: int) -> tuple[Row, list[str]]:
        one = question(rng, at) if first == "instruction" else context(rng, at, 0)
        other = context(rng, at, 1) if second == "input" else question(rng, at, 1)
        if is_rare and at % 3:
            return {first: one, second: ""}, [one]
        return {first: one, second: other}, [one, other]

    return Prompts(f"{first}+{second}", put)


def _with_system(rng: random.Random) -> Prompts:
    system, name = rng.choice(("system", "system_prompt", "system_message")), rng.choice(NAMES[:5])
    has_one_for_all = rng.random() < 0.5

    def put(at: int) -> tuple[Row, list[str]]:
        said = "Be brief and kind." if has_one_for_all else context(rng, at, 0)
        text = question(rng, at, 1)
        return {system: said, name: text}, [said, text]

    return Prompts(f"{system}+{name}", put)


def _nested(rng: random.Random) -> Prompts:
    top, name = rng.choice(
        (("info", "post"), ("question", "full_text"), ("data", "prompt"), ("meta", "question"))
    )
    title = rng.random() < 0.4 and top == "info"

    def put(at: int) -> tuple[Row, list[str]]:
        text = question(rng, at, 1)
        if title:
            head = context(rng, at, 0)
            return {top: {"id": f"t{at}", "title": head, name: text}}, [head, text]
        return {top: {"id": f"t{at}", name: text}}, [text]

    return Prompts(f"{top}.{name}", put)


def talk(rng: random.Random, at: int, words: tuple[str, str, str, str]) -> tuple[list[Row], list[str]]:
    """Return turns that end with a question, and their texts."""
    n = rng.choice((0, 1, 2))
    texts = [context(rng, at, part) for part in range(2 * n)] + [question(rng, at, 2 * n)]
    roles = [("user", "assistant")[part % 2] for part in range(2 * n + 1)]
    if rng.random() < 0.3:
        texts, roles = ["You are a guide.", *texts], ["system", *roles]
    return [turn(rng, role, text, words) for role, text in zip(roles, texts, strict=True)], texts


def _turns(rng: random.Random) -> Prompts:
    name, words = (
        rng.choice(("prompt", "messages", "context", "conversation", "conversations", "history")),
        rng.choice(TURN_WORDS),
    )

    def put(at: int) -> tuple[Row, list[str]]:
        turns, texts = talk(rng, at, words)
        return {name: turns}, texts

    return Prompts(f"turns {name}", put)


def _history(rng: random.Random) -> Prompts:
    name, asked = (
        rng.choice(("history", "context", "chat_history", "previous_messages", "dialogue")),
        rng.choice(("prompt", "question", "query")),
    )
    words, is_exchanges = rng.choice(TURN_WORDS), rng.random() < 0.4

    def put(at: int) -> tuple[Row, list[str]]:
        one, other, last = context(rng, at, 0), context(rng, at, 1), question(rng, at, 2)
        before = (
            [[one, other]]
            if is_exchanges
            else [turn(rng, "user", one, words), turn(rng, "assistant", other, words)]
        )
        return {name: before, asked: last}, [one, other, last]

    return Prompts(f"{name}+{asked}", put)


def _spelled(rng: random.Random) -> Prompts:
    name, words = rng.choice(("prompt", "messages", "conversation")), rng.choice(TURN_WORDS)

    def put(at: int) -> tuple[Row, list[str]]:
        turns, texts = talk(rng, at, words)
        return {name: json.dumps(turns)}, texts

    return Prompts(f"json({name})", put)


def extras(rng: random.Random, n: int) -> list[Row]:
    """Return columns of no use to training, the same ones for all rows: ids, sources, times, remarks of the people who labelled."""
    columns = {
        "id": lambda at: at,
        "uuid": lambda at: f"u-{at:05d}",
        "source": lambda at: ("web", "forum")[at % 2],
        "category": lambda at: ("tools", "animals", "towns")[at % 3],
        "language": lambda at: "en",
        "timestamp": lambda at: 1_700_000_000 + 60 * at,
        "annotator": lambda at: f"worker {at % 4}",
        "split": lambda at: "train",
        "rationale": lambda at: f"The better one says more of what was asked in case {at}.",
        "explanation": lambda at: f"I took the one that is clearer, number {at}.",
        "turn": lambda at: 1,
        "model": lambda at: ("x-7b", "y-8b")[at % 2],
        "n_tokens": lambda at: 40 + at,
        "difficulty": lambda at: ("easy", "hard")[at % 2],
        "dataset": lambda at: "made",
        "metadata": lambda at: {"batch": at % 3, "tool": "studio"},
        "created_at": lambda at: f"2024-05-{at % 28 + 1:02d}",
    }
    kept = rng.sample(sorted(columns), rng.choice((0, 0, 1, 2, 3)))
    return [{name: columns[name](at) for name in kept} for at in range(n)]
