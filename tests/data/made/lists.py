"""Several answers to one prompt in a list, with scores, ranks, the best one's place, or nothing but their order."""

from __future__ import annotations

import json
import random

from tests.data.made.base import Made, answer, count, ranked
from tests.data.made.prompts import extras, prompts

TOPS = [
    "responses",
    "answers",
    "completions",
    "candidates",
    "outputs",
    "generations",
    "replies",
    "options",
    "model_responses",
    "samples",
]
HIGH = [
    "scores",
    "ratings",
    "rewards",
    "stars",
    "overall_scores",
    "votes",
    "grades",
    "rm_scores",
    "quality_scores",
    "likes",
    "upvotes",
    "preference_scores",
]
LOW = ["ranks", "ranking", "positions", "places", "losses"]
INNER = ["text", "response", "answer", "content", "output", "completion"]
INNER_HIGH = [
    "score",
    "rating",
    "reward",
    "overall_score",
    "pm_score",
    "upvotes",
    "stars",
    "quality",
    "votes",
]
INNER_LOW = ["rank", "ranking", "position", "place"]


def rated(rng: random.Random) -> Made:
    """Return rows of a list of answers and a list of numbers."""
    n, k, top = count(rng), rng.choice((2, 3, 4)), rng.choice(TOPS)
    is_low = rng.random() < 0.35
    sign = 1 if is_low and rng.random() < 0.2 else -1 if is_low else 1
    name = rng.choice(LOW if is_low else HIGH)
    asked, more, has_hole = prompts(rng), extras(rng, n), rng.random() < 0.15
    is_spelled, is_varying = rng.random() < 0.15, rng.random() < 0.3
    made = Made(
        "a list and its numbers",
        [],
        {},
        {},
        details=[asked.name, top, name, str(sign), f"spelled {is_spelled}"],
    )
    for at in range(n):
        columns, texts = asked.put(at)
        answers = ranked(rng, at, k + (at % 2 if is_varying else 0))
        order = rng.sample(range(len(answers)), len(answers))
        values = [place + 1 if sign > 0 else len(answers) - place for place in range(len(answers))]
        numbers = [float(values[i]) if has_hole else values[i] for i in order]
        shuffled = [answers[i] for i in order]
        row = {**columns, top: shuffled, name: numbers, **more[at]}
        if is_spelled:
            row |= {top: json.dumps(shuffled), name: json.dumps(numbers)}
        made.rows.append(row)
        made.answers[at], made.contexts[at] = answers, texts
    return made


def objects(rng: random.Random) -> Made:
    """Return rows of a list of objects, each an answer with what rates it."""
    n, k, top, inner = count(rng), rng.choice((2, 3, 4)), rng.choice(TOPS), rng.choice(INNER)
    how = rng.choice(("high", "high", "low", "flag"))
    name = rng.choice(
        {
            "high": INNER_HIGH,
            "low": INNER_LOW,
            "flag": ["is_best", "selected", "chosen", "preferred", "accepted"],
        }[how]
    )
    sign = 1 if how == "high" or (how == "low" and rng.random() < 0.2) else -1
    extra, is_spelled = rng.choice((None, "model", "id", "author", "length")), rng.random() < 0.15
    asked, more = prompts(rng), extras(rng, n)
    made = Made(
        "a list of rated answers", [], {}, {}, details=[asked.name, top, inner, name, str(sign), str(extra)]
    )
    for at in range(n):
        columns, texts = asked.put(at)
        if how == "flag":  # noqa: SIM108 - one line would be longer than allowed
            answers = [*(answer(rng, at, 0) + f" ({i})" for i in range(k - 1)), answer(rng, at, 1)]
        else:
            answers = ranked(rng, at, k)
        items = []
        for i in rng.sample(range(k), k):
            value = i == k - 1 if how == "flag" else i + 1 if sign > 0 else k - i
            item = {inner: answers[i], name: value}
            if extra:
                item[extra] = {"length": len(answers[i]), "id": 10 * at + i}.get(extra, f"m{i}")
            items.append(item)
        made.rows.append({**columns, top: json.dumps(items) if is_spelled else items, **more[at]})
        made.answers[at], made.contexts[at] = answers, texts
    return made


def best(rng: random.Random) -> Made:
    """Return rows of a list of answers and the place or the text of the best one."""
    n, k, top = count(rng), rng.choice((2, 3, 4)), rng.choice(TOPS)
    how = rng.choice(("from 0", "from 0", "from 1", "text"))
    name = rng.choice(
        ("best", "best_index", "chosen_index", "selected", "choice", "preferred_idx", "label", "winner")
    )
    if how == "text":
        name = rng.choice(("best", "best_answer", "chosen", "winner", "preferred"))
    asked, more = prompts(rng), extras(rng, n)
    made = Made("a list and its best", [], {}, {}, details=[asked.name, top, name, how])
    for at in range(n):
        columns, texts = asked.put(at)
        answers = [*(answer(rng, at, 0) + f" ({i})" for i in range(k - 1)), answer(rng, at, 1)]
        place = at % k
        answers.insert(place, answers.pop())
        value = answers[place] if how == "text" else place + (how == "from 1")
        made.rows.append({**columns, top: answers, name: value, **more[at]})
        made.answers[at], made.contexts[at] = answers, texts
    return made


def ordered(rng: random.Random) -> Made:
    """Return rows of a list of answers, the best first."""
    n, k, top = (
        count(rng),
        rng.choice((2, 3, 4)),
        rng.choice((*TOPS, "ranking", "ranked_responses", "ranked")),
    )
    asked, more = prompts(rng), extras(rng, n)
    made = Made("a list in order", [], {}, {}, details=[asked.name, top])
    for at in range(n):
        columns, texts = asked.put(at)
        answers = ranked(rng, at, k)
        made.rows.append({**columns, top: answers[::-1], **more[at]})
        made.answers[at], made.contexts[at] = answers, texts
    return made
