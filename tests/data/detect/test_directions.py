"""Whatever a file calls its columns and however it codes a preference, it is read as it is meant, or asked about; never the other way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.file import KEY
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.data.detect.parse import Parsed, parse_rows
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import UserError
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example
from tests.data.detect.made import Made, made
from tests.data.pasted import pasted
from tests.fakes import write_jsonl

CHUNK, CHUNKS = 100, 20
WORTH = re.compile(r"Reply (\d+)\.(\d+) [^,]*, of worth (\d+)\.")


def outcome(folder: Path, seed: int) -> str:
    """Return `read`, `asked` or `refused` where that is right, else what is wrong."""
    file = made(seed)
    path = write_jsonl(folder / f"{seed}.jsonl", file.rows)
    try:
        found = infer(Source(path=str(path)))
    except Question as question:
        return _asked(question, file)
    except UserError as error:
        return "refused" if len(error.problems) >= 1 and error.problems[0].fix else f"no fix: {error}"
    return "read" if not (fault := wrong(read(found.source), file)) else f"READ WRONG, {fault}"


def _asked(question: Question, file: Made) -> str:
    """Every line that is offered is pasted: one reads all as it is meant, and none loses anything."""
    faults = []
    for option in question.options:
        try:
            found = infer(pasted(option.command))
        except Question:
            faults.append("asks again")
            continue
        except UserError as error:
            faults.append(f"fails: {error}")
            continue
        fault = wrong(read(found.source), file)
        # What a line leaves out by name is not lost unsaid.
        faults.append(
            "as said" if fault.startswith("prompt without") and "--ignore" in option.command else fault
        )
    lost = [fault for fault in faults if fault.startswith(("lost", "fails", "prompt"))]
    if "" in faults and not lost:
        return "asked"
    return f"ASKED WRONG ({question}): {faults}"


def read(source: Source) -> Parsed:
    """Parse all rows as training does."""
    problems = Problems()
    parsed = parse_rows(read_source(source, KEY, problems), source, KEY, True, problems)
    problems.raise_any()
    assert parsed is not None
    return parsed


def wrong(parsed: Parsed, file: Made) -> str:
    """Return what a reading makes wrong of a file; nothing where all is as it is meant."""
    if parsed.rows != len(file.rows):
        return f"lost: {parsed.rows} of {len(file.rows)} rows"
    uncounted = parsed.rows - parsed.dropped.total() - _rows_in(parsed.examples, file)
    if uncounted:
        return f"lost: {uncounted} rows, uncounted"
    if parsed.dropped.total() != file.ties:
        return f"lost: {parsed.dropped}"
    for example in parsed.examples:
        if fault := _of_example(example, file):
            return fault
    return ""


def _rows_in(examples: Sequence[Example], file: Made) -> int:
    """Return how many rows examples come from: one each, or those of a prompt where single answers are gathered."""
    return sum(
        len(each.completions) if file.is_single and len(each.completions) > 1 else 1 for each in examples
    )


def _of_example(example: Example, file: Made) -> str:
    prompt = text_of(example.prompt)
    found = [WORTH.findall(text_of(completion)) for completion in example.completions]
    if any(len(each) != 1 for each in found):
        return f"lost: an answer of {example.source}"
    number = int(found[0][0][0])
    missing = [text for text in file.items[number].contexts if text not in prompt]
    if missing:
        return f"prompt without {missing[0]!r}"
    if "of worth" in prompt:
        return "prompt holds an answer"
    worths = [int(each[0][2]) for each in found]
    best = max(file.items[number].worths)
    if example.label is not None and example.label != (worths[0] == best):
        return "inverted label"
    is_ranked = example.label is None and len(worths) > 1
    if is_ranked and worths != sorted(worths, reverse=True):
        return f"inverted: {worths}"
    if example.label is None and len(worths) == 1:
        return "lost: the preference"
    if is_ranked and not file.is_single and len(worths) != len(file.items[number].answers):
        return "lost: answers"
    return ""


def text_of(value: object) -> str:
    """Return all that is said in a text or in messages."""
    if isinstance(value, str):
        return value
    assert isinstance(value, list | tuple)
    return "\n".join(str(turn["content"]) for turn in value)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_file_is_read_the_other_way_and_none_loses_anything(tmp_path: Path, chunk: int) -> None:
    faults = {}
    refused = 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        found = outcome(tmp_path, seed)
        refused += found == "refused"
        if found not in ("read", "asked", "refused"):
            faults[seed] = f"{made(seed).what}: {found}"

    assert not faults
    assert refused <= CHUNK * 0.1
