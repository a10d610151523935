"""Rows that say something only together: single answers that share a prompt, and trees of messages."""

from __future__ import annotations

import random
from typing import Any

from tests.data.made.base import Made, context, question, ranked
from tests.data.made.prompts import prompts
from tests.data.made.singles import ANSWERS


def by_prompt(rng: random.Random) -> Made:
    """Return rows of single answers, a few to each prompt, with a score or a rank."""
    n, k, name = rng.choice((4, 6, 9)), rng.choice((2, 3, 4)), rng.choice(ANSWERS)
    rate, sign = rng.choice(
        (
            ("score", 1),
            ("rating", 1),
            ("reward", 1),
            ("rank", -1),
            ("rank", 1),
            ("ranking", -1),
            ("place", -1),
            ("loss", -1),
        )
    )
    asked = prompts(rng)
    made = Made("answers that share a prompt", [], {}, {}, details=[asked.name, name, rate, str(sign)])
    for at in range(n):
        columns, texts = asked.put(at)
        answers = ranked(rng, at, k)
        for i, said in enumerate(answers):
            made.rows.append({**columns, name: said, rate: i + 1 if sign > 0 else k - i})
        made.answers[at], made.contexts[at] = answers, texts
    if rng.random() < 0.5:
        rng.shuffle(made.rows)
    return made


def flat_trees(rng: random.Random) -> Made:
    """Return messages that name the one they answer."""
    n, k = rng.choice((4, 6)), rng.choice((2, 3))
    names = rng.choice(
        (
            ("message_id", "parent_id", "text", "role"),
            ("id", "parent_id", "content", "role"),
            ("id", "parent", "text", "role"),
        )
    )
    rate, sign = rng.choice((("rank", -1), ("rank", 1), ("score", 1), ("rating", 1)))
    user, assistant = rng.choice((("prompter", "assistant"), ("user", "assistant"), ("human", "bot")))
    is_deep = rng.random() < 0.4
    made = Made("a flat tree", [], {}, {}, details=[*names, rate, str(sign)])

    def node(key: str, parent: str | None, text: str, role: str, rating: int | None) -> None:
        made.rows.append({**dict(zip(names, (key, parent, text, role), strict=True)), rate: rating})

    for at in range(n):
        answers, parent, texts = ranked(rng, at, k), None, []
        if is_deep:
            texts = [context(rng, at, 0), context(rng, at, 1)]
            node(f"p{at}", None, texts[0], user, None)
            node(f"r{at}", f"p{at}", texts[1], assistant, 1)
            parent = f"r{at}"
        texts.append(question(rng, at, 2))
        node(f"q{at}", parent, texts[-1], user, None)
        for i in rng.sample(range(k), k):
            node(f"a{at}.{i}", f"q{at}", answers[i], assistant, i + 1 if sign > 0 else k - i)
        made.answers[at], made.contexts[at] = answers, texts
    return made


def nested_trees(rng: random.Random) -> Made:
    """Return messages with their replies inside."""
    n, k = rng.choice((4, 6)), rng.choice((2, 3))
    replies, text = rng.choice((("replies", "text"), ("children", "text"), ("replies", "content")))
    rate, sign = rng.choice((("rank", -1), ("rank", 1), ("score", 1)))
    top = rng.choice(("", "prompt", "tree"))
    user, is_deep = rng.choice(("prompter", "user")), rng.random() < 0.4
    made = Made("a nested tree", [], {}, {}, details=[replies, text, rate, str(sign), top])

    def node(said: str, role: str, below: list[Any], rating: int | None = None) -> dict[str, Any]:
        found = {text: said, "role": role, replies: below}
        return found if rating is None else {**found, rate: rating}

    for at in range(n):
        answers = ranked(rng, at, k)
        below = [
            node(answers[i], "assistant", [], i + 1 if sign > 0 else k - i) for i in rng.sample(range(k), k)
        ]
        texts = [question(rng, at, 2)]
        root = node(texts[0], user, below)
        if is_deep:
            texts = [context(rng, at, 0), context(rng, at, 1), *texts]
            root = node(texts[0], user, [node(texts[1], "assistant", [root], 1)])
        made.rows.append({"message_tree_id": f"t{at}", top: root} if top else root)
        made.answers[at], made.contexts[at] = answers, texts
    return made
