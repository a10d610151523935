"""One answer a row, with a label, a rating, or nothing."""

from __future__ import annotations

import random
from typing import Any

from tests.data.made.base import TURN_WORDS, Made, answer, count, turn
from tests.data.made.prompts import extras, prompts, talk

ANSWERS = [
    "completion",
    "response",
    "answer",
    "output",
    "reply",
    "generation",
    "assistant",
    "model_output",
    "bot_response",
    "Response",
]
LABELS: tuple[tuple[str, Any, Any], ...] = (
    ("label", True, False),
    ("label", 1, 0),
    ("label", "up", "down"),
    ("label", "👍", "👎"),
    ("thumbs", "up", "down"),
    ("thumb", 1, -1),
    ("thumbs_up", True, False),
    ("feedback", "positive", "negative"),
    ("feedback", "good", "bad"),
    ("is_good", True, False),
    ("kto_tag", True, False),
    ("liked", "yes", "no"),
    ("helpful", 1, 0),
    ("vote", "upvote", "downvote"),
    ("reaction", "👍", "👎"),
    ("rating", "like", "dislike"),
    ("accepted", True, False),
    ("is_safe", True, False),
    ("correct", True, False),
    ("verdict", "accept", "reject"),
    ("label", "desirable", "undesirable"),
    ("toxic", 0, 1),
    ("is_harmful", False, True),
    ("flagged", False, True),
    ("rejected", False, True),
    ("unsafe", 0, 1),
    ("label", "chosen", "rejected"),
    ("quality", "good", "bad"),
    ("sentiment", "positive", "negative"),
    ("user_feedback", "thumbs_up", "thumbs_down"),
)


def labelled(rng: random.Random) -> Made:
    """Return rows of a prompt, an answer and a label, also as a table."""
    n, name, (label, good, bad) = count(rng), rng.choice(ANSWERS), rng.choice(LABELS)
    is_table = rng.random() < 0.2
    asked, more = prompts(rng, is_text=is_table), extras(rng, n)
    made = Made(
        "a label",
        [],
        {},
        {},
        "labelled",
        ".csv" if is_table else ".jsonl",
        [asked.name, name, label, f"{good}/{bad}"],
    )
    for at in range(n):
        columns, texts = asked.put(at)
        is_good = at % 2 == 0
        said = answer(rng, at, int(is_good))
        made.rows.append({**columns, name: said, label: good if is_good else bad, **more[at]})
        made.answers[at], made.contexts[at] = [said], texts
    return made


def conversations(rng: random.Random) -> Made:
    """Return rows of a whole conversation and a label."""
    n, words, (label, good, bad) = count(rng), rng.choice(TURN_WORDS), rng.choice(LABELS[:15])
    name, more = rng.choice(("messages", "conversation", "conversations", "chat")), extras(rng, n)
    made = Made("a label of a conversation", [], {}, {}, "labelled", details=[name, label, f"{good}/{bad}"])
    for at in range(n):
        turns, texts = talk(rng, at, words)
        said = answer(rng, at, int(at % 2 == 0))
        row = {name: [*turns, turn(rng, "assistant", said, words)], label: bad if at % 2 else good}
        made.rows.append({**row, **more[at]})
        made.answers[at], made.contexts[at] = [said], texts
    return made


def rated(rng: random.Random) -> Made:
    """Return rows of a prompt, an answer and how good it is in numbers."""
    n, name = count(rng), rng.choice(ANSWERS)
    rate = rng.choice(("rating", "score", "stars", "quality", "reward", "helpfulness", "grade"))
    top = rng.choice((5, 5, 10, 1.0))
    asked, more = prompts(rng), extras(rng, n)
    made = Made("a rating", [], {}, {}, "labelled", details=[asked.name, name, rate, str(top)])
    for at in range(n):
        columns, texts = asked.put(at)
        level = at % 5
        value = round((level + 1) * top / 5, 2) if top != 1.0 else level / 4
        metal = "Gilt" if level > 2 else "Lead" if level < 2 else "Tin"
        said = answer(rng, at, level, metal)
        made.rows.append({**columns, name: said, rate: value, **more[at]})
        made.answers[at], made.contexts[at] = [said], texts
    return made


def imitated(rng: random.Random) -> Made:
    """Return rows of answers to imitate: all are good."""
    n, how, words = count(rng), rng.choice(("answer", "messages", "exchanges")), rng.choice(TURN_WORDS)
    asked, name, more = prompts(rng), rng.choice(ANSWERS), extras(rng, n)
    made = Made("answers to imitate", [], {}, {}, "targets", details=[asked.name, how, name])
    for at in range(n):
        said = answer(rng, at, 1)
        if how == "answer":
            columns, texts = asked.put(at)
            row = {**columns, name: said}
        else:
            turns, texts = talk(rng, at, words)
            row = {"conversations": [*turns, turn(rng, "assistant", said, words)]}
            if how == "exchanges":
                row, texts = {"conversation": [{"input": texts[-1], "output": said}]}, texts[-1:]
        made.rows.append({**row, **more[at]})
        made.answers[at], made.contexts[at] = [said], texts
    return made
