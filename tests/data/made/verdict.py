"""What a reading of a made file gets wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.data.detect.parse import Parsed, parse_rows
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import UserError
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example, Text
from tests.data.made.base import Made
from tests.data.pasted import pasted

UNCOUNTED = "lost: more than is counted"
NOTE = re.compile(r"(Gilt|Lead|Tin) note (\d+)\.(\d+): [^\n]*")


@dataclass
class Verdict:
    """What became of a file."""

    outcome: str
    """read, asked, or refused."""
    faults: list[str]
    """What is wrong, each starting with its kind: inverted, lost, prompt, kind, crash, question."""
    said: str = ""


def judge(made: Made, folder: Path) -> Verdict:
    """Return what `dpo init` makes of a file, held against the truth; a question by each of its lines."""
    path = made.write(folder)
    try:
        found = infer(Source(path=str(path)))
    except Question as question:
        return Verdict("asked", _of_question(made, question), "; ".join(question.lines()))
    except UserError as error:
        return Verdict("refused", [], str(error))
    except Exception as error:
        return Verdict("crashed", [f"crash: {type(error).__name__}: {error}"])
    return Verdict("read", _of_source(made, found.source), "; ".join(found.lines()))


def _of_question(made: Made, question: Question) -> list[str]:
    faults, is_right = [], False
    for option in question.options:
        if not option.shown:
            faults.append(f"question: shows nothing of a row: {option.means}")
        try:
            source = infer(pasted(option.command)).source
        except Exception as error:
            faults.append(f"question: `{option.command}` fails: {type(error).__name__}: {error}")
            continue
        found = _of_source(made, source)
        is_right = is_right or not found
        faults += [f"{fault} (by {option.means})" for fault in found if fault == UNCOUNTED]
    return faults if is_right else [*faults, "question: no line gives the whole truth"]


def _of_source(made: Made, source: Source) -> list[str]:
    problems = Problems()
    parsed = parse_rows(read_source(source, "data", problems), source, "data", True, problems)
    problems.raise_any()
    assert parsed is not None
    return list(dict.fromkeys(_faults(made, parsed)))


def _faults(made: Made, parsed: Parsed) -> list[str]:
    faults, seen = [], set[str]()
    for example in parsed.examples:
        notes = [NOTE.search(_text(completion)) for completion in example.completions]
        if not all(notes):
            faults.append("kind: what is no answer is read as one")
            continue
        found = [note for note in notes if note]
        seen |= {note[0] for note in found}
        faults += [
            *_direction(made, example, [(note[1], int(note[3])) for note in found]),
            *_prompt(made, example, found),
        ]
    left = {at: [said for said in answers if said not in seen] for at, answers in made.answers.items()}
    silent = [at for at, answers in left.items() if answers and not _says_nothing(made.answers[at])]
    is_single = (
        parsed.format.kind == "labelled"
    )  # rows of one answer each: what is neither good nor bad is left out
    if silent and not is_single:
        faults.append(f"lost: answers of {len(silent)} of {len(left)} prompts")
    n_left = sum(map(len, left.values())) if is_single else sum(map(bool, left.values()))
    if n_left > parsed.dropped.total():
        faults.append(UNCOUNTED)
    return faults


def _direction(made: Made, example: Example, notes: Sequence[tuple[str, int]]) -> list[str]:
    if len(notes) == 1:
        ((metal, _),) = notes
        if example.label is None:
            return [] if made.kind == "targets" else ["kind: answers to imitate are made of preferences"]
        if made.kind == "targets":
            return ["kind: labels are made of answers to imitate"]
        is_wrong = metal == ("Lead" if example.label else "Gilt")
        return ["inverted: a label"] if is_wrong else []
    if made.kind != "pairs":
        return ["kind: pairs are made of single answers"]
    ratings = example.ratings or range(len(notes), 0, -1)
    pairs = [(i, j) for i in range(len(notes)) for j in range(len(notes)) if ratings[i] > ratings[j]]
    wrong = [(i, j) for i, j in pairs if notes[i][1] <= notes[j][1]]
    missing = [
        (i, j)
        for i in range(len(notes))
        for j in range(len(notes))
        if notes[i][1] > notes[j][1] and (i, j) not in pairs
    ]
    return [
        *(["inverted: a pair"] if wrong else []),
        *(["lost: a preference"] if missing and not wrong else []),
    ]


def _prompt(made: Made, example: Example, notes: Sequence[re.Match[str]]) -> list[str]:
    asked, at = _text(example.prompt), int(notes[0][2])
    faults = []
    if NOTE.search(asked):
        faults.append("prompt: it holds an answer")
    wanted = made.contexts[at]
    if made.kind == "targets":
        # Of a conversation every answer is imitated: what was said before is there as well.
        asked += "".join(_text(completion) for completion in example.completions)
        return faults if all(text in asked for text in wanted) else ["prompt: some of the context is missing"]
    places = [asked.find(text) for text in wanted]
    if -1 in places:
        faults.append("prompt: some of the context is missing")
    elif any(asked.count(text) > 1 for text in wanted):
        faults.append("prompt: some of the context is there twice")
    if any(int(note[2]) != at for note in notes):
        faults.append("prompt: answers of two prompts in one example")
    for completion in example.completions:
        if any(text in _text(completion) for text in wanted):
            faults.append("prompt: context in an answer")
    return faults


def _says_nothing(answers: Sequence[str]) -> bool:
    """Return whether answers are of one quality, or alone and neither good nor bad."""
    notes = [NOTE.search(said) for said in answers]
    qualities = {int(note[3]) for note in notes if note}
    return (len(answers) > 1 and len(qualities) == 1) or all(
        note is not None and note[1] == "Tin" for note in notes
    )


def _text(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(str(turn["content"]) for turn in text)
