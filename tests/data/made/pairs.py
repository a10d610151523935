"""A chosen answer beside a rejected one, by names."""

from __future__ import annotations

import json
import random

from tests.data.made.base import TURN_WORDS, Made, answer, count, turn
from tests.data.made.prompts import extras, prompts, talk

SIDES = (
    ("chosen", "rejected"),
    ("preferred", "dispreferred"),
    ("preferred", "non_preferred"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("answer_chosen", "answer_rejected"),
    ("my_chosen", "my_rejected"),
    ("accepted", "rejected"),
    ("better", "worse"),
    ("good", "bad"),
    ("winner", "loser"),
    ("win", "lose"),
    ("best", "worst"),
    ("positive", "negative"),
    ("response_j", "response_k"),
    ("y_w", "y_l"),
    ("yw", "yl"),
    ("chosen_text", "rejected_text"),
    ("better_response", "worse_response"),
    ("winning_response", "losing_response"),
    ("positive_answer", "negative_answer"),
    ("good_answer", "bad_answer"),
    ("preferred_completion", "rejected_completion"),
    ("Chosen", "Rejected"),
    ("output_preferred", "output_dispreferred"),
)


def flat(rng: random.Random) -> Made:
    """Return rows of a prompt and two answers, as text or as one message each."""
    n, (good, bad) = count(rng), rng.choice(SIDES)
    how, words = rng.choice(("text", "text", "turns", "turn", "spelled")), rng.choice(TURN_WORDS)
    asked, more = prompts(rng), extras(rng, n)
    scores = rng.choice((None, None, ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")))
    made = Made("pairs", [], {}, {}, details=[asked.name, good, bad, how])
    for at in range(n):
        columns, texts = asked.put(at)
        pair = answer(rng, at, 1), answer(rng, at, 0)
        said = [_as(how, turn(rng, "assistant", text, words), text) for text in pair]
        row = {**columns, good: said[0], bad: said[1], **more[at]}
        if scores:
            row |= dict(zip(scores, (rng.randint(5, 9), rng.randint(1, 4)), strict=True))
        made.rows.append(_shuffled(rng, at, row))
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def _as(how: str, message: dict, text: str) -> object:
    forms = {"text": text, "turns": [message], "turn": message, "spelled": json.dumps([message])}
    return forms[how]


def _shuffled(rng: random.Random, at: int, row: dict) -> dict:
    """Return a row with its columns in another order, the same for all rows."""
    names = sorted(row)
    random.Random(len(names)).shuffle(names)
    return {name: row[name] for name in names}


def conversations(rng: random.Random) -> Made:
    """Return rows of two whole conversations, some with their question in a column of its own."""
    n, (good, bad), words = count(rng), rng.choice(SIDES[:8]), rng.choice(TURN_WORDS)
    beside, is_spelled = rng.choice(("", "prompt", "question")), rng.random() < 0.2
    more = extras(rng, n)
    made = Made("pairs of conversations", [], {}, {}, details=[good, bad, beside, str(is_spelled)])
    for at in range(n):
        turns, texts = talk(rng, at, words)
        pair = answer(rng, at, 1), answer(rng, at, 0)
        sides = [[*turns, turn(rng, "assistant", text, words)] for text in pair]
        sides = [json.dumps(side) for side in sides] if is_spelled else sides
        row = {good: sides[0], bad: sides[1], **more[at]}
        if beside:
            row[beside] = texts[-1]
        made.rows.append(row)
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def transcripts(rng: random.Random) -> Made:
    """Return rows of two transcripts, or of a transcript that is open and two answers."""
    n, (good, bad), is_open = count(rng), rng.choice(SIDES[:3]), rng.random() < 0.4
    more = extras(rng, n)
    made = Made("transcripts", [], {}, {}, details=[good, bad, str(is_open)])
    for at in range(n):
        turns, texts = talk(rng, at, ("role", "content", "Human", "Assistant"))
        turns = [each for each in turns if each["role"] != "system"]
        texts = [each["content"] for each in turns]
        before = "".join(f"\n\n{each['role']}: {each['content']}" for each in turns)
        pair = answer(rng, at, 1), answer(rng, at, 0)
        row = {good: f"{before}\n\nAssistant: {pair[0]}", bad: f"{before}\n\nAssistant: {pair[1]}"}
        if is_open:
            row = {"prompt": f"{before}\n\nAssistant:", good: pair[0], bad: pair[1]}
        made.rows.append({**row, **more[at]})
        made.answers[at], made.contexts[at] = list(pair), texts
    return made


def last_answer(rng: random.Random) -> Made:
    """Return rows of a conversation that ends with the better answer, and the worse one beside it."""
    n, words = count(rng), rng.choice(TURN_WORDS)
    name = rng.choice(("messages", "conversations", "conversation"))
    bad = rng.choice(("rejected_response", "rejected", "rejected_messages"))
    made = Made("a rejected last answer", [], {}, {}, details=[name, bad])
    more = extras(rng, n)
    for at in range(n):
        turns, texts = talk(rng, at, words)
        good, worse = answer(rng, at, 1), answer(rng, at, 0)
        other = [*turns, turn(rng, "assistant", worse, words)] if bad == "rejected_messages" else worse
        row = {name: [*turns, turn(rng, "assistant", good, words)], bad: other}
        made.rows.append({**row, **more[at]})
        made.answers[at], made.contexts[at] = [good, worse], texts
    return made


def sides(rng: random.Random) -> Made:
    """Return rows of a prompt, a list of chosen and a list of rejected answers."""
    n, asked, more = count(rng), prompts(rng), None
    names = rng.choice(
        (("chosen", "rejected"), ("accepted", "rejected"), ("chosen_responses", "rejected_responses"))
    )
    n_good, n_bad = rng.choice(((1, 3), (2, 2), (1, 1), (3, 1)))
    more = extras(rng, n)
    made = Made("lists of chosen and rejected", [], {}, {}, details=[asked.name, *names, f"{n_good}:{n_bad}"])
    for at in range(n):
        columns, texts = asked.put(at)
        good = [answer(rng, at, 1) + f" ({k})" for k in range(n_good)]
        bad = [answer(rng, at, 0) + f" ({k})" for k in range(n_bad)]
        made.rows.append({**columns, names[0]: good, names[1]: bad, **more[at]})
        made.answers[at], made.contexts[at] = good + bad, texts
    return made
