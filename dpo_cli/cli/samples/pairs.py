"""`dpo pairs`: preference pairs out of sampled answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from dpo_cli.cli.arguments import JsonOption
from dpo_cli.cli.samples.judge import (
    VERDICTS_MISSING,
    JudgeInputOption,
    JudgeModelOption,
    JudgeOption,
    SamplesArgument,
    verdicts_of,
)


def pairs(
    samples: SamplesArgument,
    spec: JudgeOption,
    model: JudgeModelOption = None,
    reads: JudgeInputOption = None,
    take: Annotated[
        Literal["best-worst", "all"],
        typer.Option(help="Of each prompt: the best against the worst, or every two."),
    ] = "best-worst",
    min_gap: Annotated[
        float,
        typer.Option(
            metavar="X", min=0, help="Leave out pairs whose ratings differ by less, in the judge's unit."
        ),
    ] = 0.0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="JSONL to write.")] = Path("pairs.jsonl"),
    as_json: JsonOption = False,
) -> None:
    """Make preference pairs of sampled answers, as a judge rates them. Exits with 10 where verdicts are missing."""
    from dpo_cli.errors import DataError
    from dpo_cli.evaluate.judges import open_judge
    from dpo_cli.evaluate.samples.make_pairs import groups_of, pairs_of, preference, ratings
    from dpo_cli.evaluate.samples.samples_file import samples_of, write_rows
    from dpo_cli.metrics import terminal

    groups, left_out = groups_of(samples_of(samples))
    if not groups:
        what = "no prompt has two answers that differ"
        raise DataError.of(str(samples), what, "dpo sample --n 4 --temperature 1")
    found = open_judge(spec, model, reads)
    verdicts = verdicts_of(found, [question for group in groups for question in group.questions])
    missing: Counter[str] = Counter(each.reason for each in verdicts if each.win is None)
    answers, rows = iter(verdicts), []
    for group in groups:
        rated = ratings(group, [next(answers) for _ in group.questions])
        if len(rated) < 2:
            left_out["prompts without two ratings"] += 1
            continue
        kept, dropped = pairs_of(rated, take, min_gap)
        left_out += dropped
        rows += [preference(better, worse, found.name, found.digest) for better, worse in kept]
    if not rows and not missing:
        what = f"no pair is left: {', '.join(f'{n:,} {why}' for why, n in left_out.items())}"
        raise DataError.of(str(samples), what, "dpo sample --n 8, another judge or a smaller --min-gap")
    write_rows(rows, out)
    facts = {"judge": found.name, **found.facts(), "pairs": len(rows), "prompts": len(groups)}
    if as_json:
        print(json.dumps({**facts, "left_out": left_out, "missing": missing, "file": str(out)}))
    else:
        lines = [f"{len(rows):,} pairs from {len(groups):,} prompts by {found.name}"]
        lines += [f"left out  {n:,} {what}" for what, n in left_out.items()]
        lines += [f"missing   {n:,} verdicts: {reason}" for reason, n in missing.items()]
        print("\n".join(lines))
        terminal.say(terminal.console(), f"wrote  {out}")
    if missing:
        raise typer.Exit(VERDICTS_MISSING)
