"""`dpo judge`: how often a model's sampled answers are preferred to its reference's and to the data's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpo_cli.cli.arguments import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.evaluate.judges._base import Judge, Question, Verdict

VERDICTS_MISSING = 10
"""Exit code where the judge left questions open; the same command asks only those again."""

SamplesArgument = Annotated[Path, typer.Argument(metavar="SAMPLES", help="JSONL that `dpo sample` wrote.")]
JudgeOption = Annotated[
    str,
    typer.Option(
        "--judge",
        metavar="JUDGE",
        help="`longer`, `lexicon`, a reward model (run, folder or hub id), or an OpenAI-compatible server as https://HOST/v1, with its key"
        " in DPO_JUDGE_API_KEY.",
    ),
]
JudgeModelOption = Annotated[
    str | None, typer.Option("--judge-model", metavar="NAME", help="For a server: what it calls its model.")
]
JudgeInputOption = Annotated[
    Literal["chat", "pair"] | None,
    typer.Option(
        "--judge-input",
        help="For a reward model: as a chat, or prompt and answer as a pair of texts; by default as its template says.",
    ),
]


def judge(
    samples: SamplesArgument,
    spec: JudgeOption,
    model: JudgeModelOption = None,
    reads: JudgeInputOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSONL to write, one verdict a line; SAMPLES.JUDGE.jsonl by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Return win rates of sampled answers by a judge, with what length alone would win. Exits with 10 where verdicts are missing."""
    from dpo_cli.errors import DataError
    from dpo_cli.evaluate.judges import open_judge
    from dpo_cli.evaluate.judges.longer import Longer
    from dpo_cli.evaluate.samples.reward_vs_kl import FRONTIER, add_points, points_of
    from dpo_cli.evaluate.samples.samples_file import samples_of, write_rows
    from dpo_cli.evaluate.samples.win_rate import contests, figures, rows_of
    from dpo_cli.metrics import terminal

    asked = contests(samples_of(samples))
    if not asked:
        what = "the policy's answers stand alone: no reference's, none of the data's"
        raise DataError.of(str(samples), what, "dpo sample --reference MODEL, or prompts with `chosen`")
    found = open_judge(spec, model, reads)
    questions = [each.question for each in asked]
    verdicts = verdicts_of(found, questions)
    judged, plain = (figures(asked, given) for given in (verdicts, verdicts_of(Longer(), questions)))
    slug = re.sub(r"[^\w.-]+", "-", found.name)
    path = out or samples.with_suffix(f".{slug}.jsonl")
    write_rows(rows_of(asked, verdicts, found.name, found.digest), path)
    if points := points_of(asked, verdicts, found.name):
        add_points(points, samples.parent / FRONTIER)  # beside a run's samples: `dpo compare` draws it
    missing = sum(each["missing"] for each in judged)
    facts = {"judge": found.name, **found.facts(), "missing": missing, "figures": judged, "longer": plain}
    if as_json:
        print(json.dumps({**facts, "file": str(path)}))
    else:
        print("\n".join(lines(facts)))
        terminal.say(terminal.console(), f"wrote  {path}: {len(asked):,} rows")
    if missing:
        raise typer.Exit(VERDICTS_MISSING)


def verdicts_of(found: Judge, questions: Sequence[Question]) -> list[Verdict]:
    """Ask a judge, with a bar."""
    from dpo_cli.metrics.progress import progress

    with progress(f"judge {found.name}", len(questions)) as advance:
        return found.judge(questions, advance)


def lines(facts: dict[str, Any]) -> list[str]:
    """Say the win rates, the judge's and beside them the trivial one's, and what is missing and why."""
    from dpo_cli.cli.data.columns import table, width
    from dpo_cli.cli.evaluate.eval import interval

    heads = ["policy against", "temperature", "win rate", '"longer"', "ties", "n", "missing"]
    cells = [
        [
            each["against"],
            f"{each['temperature']:g}",
            "-" if each["win_rate"] is None else f"{each['win_rate']:.3f}{interval(each['ci'], '.3f')}",
            f"{beside['win_rate']:.3f}{interval(beside['ci'], '.3f')}",
            f"{each['ties']:,}",
            f"{each['n']:,}",
            f"{each['missing']:,}",
        ]
        for each, beside in zip(facts["figures"], facts["longer"], strict=True)
    ]
    lines = [f"judge {facts['judge']}{_cost(facts)}"]
    lines += [line for line in table(heads, cells, ["" for _ in cells], width()) if line.strip()]
    for each in facts["figures"]:
        for reason, n in each["reasons"].items():
            lines.append(f"missing  {n:,} against {each['against']} at {each['temperature']:g}: {reason}")
    if facts["missing"]:
        lines.append("the same command asks only for what is missing")
    return lines


def _cost(facts: dict[str, Any]) -> str:
    if "asked" not in facts:
        return f"   reads {facts['input']}" if "input" in facts else ""
    first = facts["first_preferred"]
    order = "" if first is None else f"   first one preferred {first:.2f}"
    tokens = f"{facts['prompt_tokens']:,} + {facts['completion_tokens']:,} tokens"
    return f"   {facts['asked']:,} answers asked for, {facts['found']:,} known   {tokens}{order}"
