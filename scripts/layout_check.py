"""Infer each data file of some folders as `dpo init` does, and hold every row against marks in the answers: none turned round, none lost.

python scripts/layout_check.py FOLDER... [--better Gilt] [--worse Lead] [--asked REGEX]

An answer that starts with the one mark is better, one with the other is worse; what matches `--asked` anywhere in a file belongs to every prompt.
Prints a line a file and the totals; a question is answered by each of its lines in turn. Exit code 1 where a file is inverted, or loses rows
that nothing counts, or what is asked.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpo_cli.cli.files import Stated, is_data_file
from dpo_cli.data.infer import infer
from dpo_cli.data.infer.question import Question
from dpo_cli.data.parse import Parsed, parse_rows
from dpo_cli.data.read import read_source
from dpo_cli.data.rows import Problems
from dpo_cli.errors import UserError
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example, Text

BAD = ("INVERTED", "LOST")


@dataclass(frozen=True)
class Marks:
    """How an answer says what it is."""

    better: str
    worse: str
    asked: re.Pattern[str]
    """What every prompt has, in a file that has it at all."""

    def quality(self, text: Text) -> int:
        """Return 1 for an answer that is marked as better, -1 for a worse one, 0 for any other."""
        said = _text(text) if isinstance(text, str) else _last(text)
        said = said.lstrip()
        return 1 if said.startswith(self.better) else -1 if said.startswith(self.worse) else 0

    def is_in(self, text: Text) -> bool:
        """Return whether a text holds a mark where an answer starts."""
        return bool(re.search(rf"(?:^|\n|: )(?:{self.better}|{self.worse})\b", _text(text)))


def _text(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(str(turn["content"]) for turn in text)


def _last(turns: Sequence[object]) -> str:
    return str(turns[-1]["content"]) if turns else ""  # type: ignore[index]


def fault_of(example: Example, marks: Marks) -> str:
    """Return what is wrong with an example; empty where nothing is."""
    if marks.is_in(example.prompt):
        return "INVERTED the prompt holds an answer"
    found = [marks.quality(completion) for completion in example.completions]
    if example.label is not None:
        is_wrong = found[0] == (-1 if example.label else 1)
        return "INVERTED a label" if is_wrong else ""
    ratings = example.ratings or range(len(found), 0, -1)
    pairs = [(a, b) for i, a in enumerate(found) for j, b in enumerate(found) if ratings[i] > ratings[j]]
    if any(a < b for a, b in pairs):
        return "INVERTED a pair"
    return "INVERTED a bad answer is to be imitated" if found == [-1] else ""


def parsed_of(source: Source) -> Parsed:
    """Return what a source makes of all rows.

    Raises:
        UserError: rows that it cannot read.
    """
    problems = Problems()
    parsed = parse_rows(read_source(source, "data.train[0]", problems), source, "data.train[0]", True, problems)
    problems.raise_any()
    if parsed is None:
        raise UserError.of(source.path, "no rows", "a file with some")
    return parsed


def read(source: Source, marks: Marks) -> tuple[str, str]:
    """Return READ, INVERTED or LOST, and what was read."""
    parsed = parsed_of(source)
    faults = Counter(fault for example in parsed.examples if (fault := fault_of(example, marks)))
    texts = [_text(example.prompt) for example in parsed.examples]
    unasked = sum(not marks.asked.search(text) for text in texts)
    kept, dropped = len(parsed.examples), parsed.dropped.total()
    said = f"{parsed.format.name}, {parsed.rows} rows, {kept} kept"
    said += "".join(f", {n} {reason}" for reason, n in parsed.dropped.items())
    if faults:
        ((fault, n), *_) = faults.most_common()
        return "INVERTED", f"{fault.removeprefix('INVERTED ')} in {n} of {kept} ({said})"
    if kept + dropped != parsed.rows or not kept:
        return "LOST", said
    if 0 < unasked < kept or (unasked and _is_anywhere(source, marks.asked)):
        return "LOST", f"what is asked, in {unasked} of {kept} ({said})"
    return "READ", said


def _is_anywhere(source: Source, asked: re.Pattern[str]) -> bool:
    return any(asked.search(str(row.values)) for row in read_source(source, "data.train[0]", Problems()))


def pasted(command: str) -> Source:
    """Return the source that a printed `dpo init FILE ...` states."""
    parser = argparse.ArgumentParser()
    for name in ("--column", "--label", "--ignore"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--format", default="auto")
    parser.add_argument("--better")
    parser.add_argument("--gather", default="rows")
    parser.add_argument("--skip-null", action="store_true")
    parser.add_argument("path")
    found = parser.parse_args(shlex.split(command)[2:])
    stated = Stated(found.format, found.column, found.label, found.better, found.gather, found.ignore)
    return replace(stated.source(found.path), skip_null=found.skip_null)


def check(path: Path, marks: Marks) -> tuple[str, str]:
    """Return what becomes of a file: READ, ASK, REFUSED, INVERTED or LOST, and what is to be said of it."""
    try:
        found = infer(Source(path=str(path)))
    except Question as question:
        outcomes = [_answered(option.command, marks) for option in question.options]
        lines = "; ".join(f"{option.means}: {outcome}" for option, (outcome, _) in zip(question.options, outcomes, strict=True))
        if not any(outcome == "READ" for outcome, _ in outcomes):
            return "LOST", f"no line of {len(outcomes)} reads all of it: {lines}"
        return "ASK", f"{len(outcomes)} options: {lines}"
    except UserError as error:
        return "REFUSED", str(error).splitlines()[0]
    return read(found.source, marks)


def _answered(command: str, marks: Marks) -> tuple[str, str]:
    try:
        return read(infer(pasted(command)).source, marks)
    except UserError as error:
        return "FAILS", str(error)


def main() -> int:
    """Check all files and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--better", default="Gilt")
    parser.add_argument("--worse", default="Lead")
    parser.add_argument("--asked", default=r"\(case \d+\)", help="a regular expression")
    given = parser.parse_args()
    marks, totals = Marks(given.better, given.worse, re.compile(given.asked)), Counter[str]()
    for path in sorted(path for folder in given.folders for path in folder.rglob("*") if is_data_file(path.name)):
        outcome, said = check(path, marks)
        totals[outcome] += 1
        print(f"{outcome:<8} {path.parent.name}/{path.name}: {said}")
    print(", ".join(f"{n} {outcome}" for outcome, n in sorted(totals.items())))
    return int(any(totals[outcome] for outcome in BAD))


if __name__ == "__main__":
    sys.exit(main())
