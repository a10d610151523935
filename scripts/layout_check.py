"""Read files of preferences as `dpo init` does, all rows of them, and check what the answers say of themselves.

    python scripts/layout_check.py FOLDER...

For rows made up so that a better answer holds one word and a worse one another (`--better Gilt --worse Lead`). A file is READ, or ASKed about,
where each line that is offered is tried, or REFUSED in one line; INVERTED or LOST is a fault. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dpo_cli.cli.data.files import Stated
from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.file import KEY
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.data.detect.parse import Parsed, parse_rows
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import UserError
from dpo_cli.recipe.schema import Source

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")
NOT_DATA = ("config", "tokenizer", "generation", "special_tokens", "added_tokens", "adapter_config", "vocab")
FAULTS = ("INVERTED", "LOST")


def look(path: Path, better: str, worse: str) -> str:
    """Return in a line what becomes of a file."""
    try:
        found = infer(Source(path=str(path)))
    except Question as question:
        results = [_option(shlex.split(option.command), better, worse) for option in question.options]
        right = [result for result in results if result.startswith("READ")]
        lost = [result for result in results if result.startswith("LOST")]
        return (
            lost[0]
            if lost
            else f"ASK {len(results)} options, {len(right)} right"
            if right
            else f"LOST {results}"
        )
    except UserError as error:
        return f"REFUSED {str(error).splitlines()[0]}"
    return checked(found.source, better, worse)


def _option(words: list[str], better: str, worse: str) -> str:
    """Return what a line that was offered makes of the file."""
    try:
        return checked(infer(stated(words)).source, better, worse)
    except UserError as error:
        return f"ASKS AGAIN {str(error).splitlines()[0]}"


def stated(words: list[str]) -> Source:
    """Return the source that the words of a command, `dpo init FILE OPTION...`, state."""
    lists: dict[str, list[str]] = {"--column": [], "--label": [], "--ignore": []}
    single = {"--format": "auto", "--better": None, "--gather": "rows"}
    left = iter(words[3:])
    for word in left:
        if word in lists:
            lists[word].append(next(left))
        elif word in single:
            single[word] = next(left)
    return Stated(
        single["--format"] or "auto",
        lists["--column"],
        lists["--label"],
        single["--better"],
        single["--gather"] or "rows",
        lists["--ignore"],
        "--skip-null" in words,
    ).source(words[2])


def checked(source: Source, better: str, worse: str) -> str:
    """Parse all rows of a source and check them."""
    problems = Problems()
    parsed = parse_rows(read_source(source, KEY, problems), source, KEY, True, problems)
    problems.raise_any()
    assert parsed is not None, "infer() has read the rows"
    faults = Counter(_faults(parsed, better, worse))
    if faults:
        return ", ".join(f"{fault} {n}" for fault, n in faults.items())
    if source.gather == "rows" and parsed.rows != len(parsed.examples) + parsed.dropped.total():
        return f"LOST {parsed.rows - len(parsed.examples) - parsed.dropped.total()} rows, uncounted"
    dropped = ", ".join(f"{n} {reason}" for reason, n in parsed.dropped.items())
    return f"READ {parsed.format.name}, {len(parsed.examples)} of {parsed.rows}" + (
        f" ({dropped})" if dropped else ""
    )


def _faults(parsed: Parsed, better: str, worse: str) -> Iterator[str]:
    for example in parsed.examples:
        answers = [str(completion) for completion in example.completions]
        first, last = answers[0], answers[-1]
        if len(answers) > 1:
            is_inverted = worse in first and better in last
        else:
            is_inverted = (worse in first and example.label is True) or (
                better in first and example.label is False
            )
        if is_inverted:
            yield "INVERTED"
        prompt = str(example.prompt)
        if any(answer in prompt for answer in answers):
            yield "LOST: the prompt holds an answer,"


def main() -> int:
    """Look at every file of data in the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--better", default="Gilt")
    parser.add_argument("--worse", default="Lead")
    given = parser.parse_args()
    totals: Counter[str] = Counter()
    for folder in given.folders:
        for path in sorted(path for path in folder.rglob("*") if path.name.endswith(ENDINGS)):
            if path.name.startswith(NOT_DATA) or "_make" in path.parts:
                continue
            found = look(path, given.better, given.worse)
            totals[found.split()[0].rstrip(":,")] += 1
            print(f"{path.relative_to(folder)}: {found}"[:300])
    print(", ".join(f"{n} {what}" for what, n in totals.most_common()))
    return int(any(fault in totals for fault in FAULTS))


if __name__ == "__main__":
    raise SystemExit(main())
