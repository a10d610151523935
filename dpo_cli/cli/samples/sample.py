"""`dpo sample`: answers of a model and of its reference to the same prompts, and how far apart the two are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, SeedOption, TargetArgument

SHOWN = 3
"""Prompts whose answers are printed."""


def sample(
    model: TargetArgument,
    overrides: OverridesArgument = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What answers beside it; `none` for nothing. A run has its own."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL with a `prompt` in each row (`chosen` too, if you have it); by default the held-out rows.",
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", metavar="N", min=1, help="Answers for each prompt and temperature.")
    ] = 1,
    temperature: Annotated[
        str, typer.Option(metavar="T,T", help="One or several, as in 0,0.7,1; 0 is greedy.")
    ] = "1",
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="How many prompts; 0 for all.")] = 100,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")] = 128,
    seed: SeedOption = 0,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What generates; vllm has to be installed.")
    ] = "transformers",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSONL to write; by default RUN/samples.jsonl, or samples.jsonl here."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample answers from a model and its reference, side by side, with length, repetition and KL. Goes on where it stopped."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")  # see `dpo train`
    from dpo_cli.engine.runtime import Runtime
    from dpo_cli.evaluate.samples.sample import Draws, reference_name
    from dpo_cli.evaluate.samples.sample import sample as draw
    from dpo_cli.evaluate.samples.samples_file import figures
    from dpo_cli.metrics import terminal
    from dpo_cli.runs.target import NONE, subject_of

    subject = subject_of(model, [*(overrides or []), NONE])
    behind = reference_name(subject, reference)
    draws = Draws(n, _temperatures(temperature), max_new_tokens, seed, limit, engine)
    path = out or (subject.run or Path()) / "samples.jsonl"
    runtime = Runtime(subject.recipe.train.precision)
    try:
        rows, notes = draw(subject, behind, data, draws, path, runtime)
    finally:
        runtime.close()
    found = figures(rows)
    if as_json:
        print(json.dumps({"file": str(path), "rows": len(rows), "figures": found, "notes": notes}))
        return
    print("\n".join([*lines(found), *side_by_side(rows)]))
    for note in [*notes, f"wrote  {path}: {len(rows):,} rows"]:
        terminal.say(terminal.console(), note)


def _temperatures(text: str) -> tuple[float, ...]:
    from dpo_cli.errors import RecipeError

    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= each <= 100 for each in found):
        raise RecipeError.of("--temperature", f"'{text}' is no list of numbers from 0 on", "0,0.7,1")
    return found


def lines(found: list[dict[str, Any]]) -> list[str]:
    """Say the figures: a line for each model and temperature, then what the reference is away."""
    from dpo_cli.cli.data.columns import table, width
    from dpo_cli.cli.evaluate.eval import interval

    heads = ["model", "temperature", "n", "tokens", "ended", "repeated 4-grams", "log-ratio, nats"]
    cells = [
        [
            each["role"],
            f"{each['temperature']:g}",
            f"{each['n']:,}",
            f"{each['tokens']:.1f}{interval(each['tokens_ci'], '.1f')}",
            f"{each['ended']:.3f}",
            f"{each['repetition']:.3f}",
            "-" if each["log_ratio"] is None else f"{each['log_ratio']['mean']:+.3g}",
        ]
        for each in found
    ]
    lines = [line for line in table(heads, cells, ["" for _ in cells], width()) if line.strip()]
    for each in found:
        if each["is_kl"]:
            of = each["log_ratio"]
            whole = f"{of['mean']:.3g}{interval(of['ci'], '.3g')} nats an answer"
            lines.append(
                f"KL(policy || reference)  {whole}, {of['per_token']:.3g}{interval(of['per_token_ci'], '.2g')} a token"
            )
    return lines


def side_by_side(rows: list[dict[str, Any]]) -> list[str]:
    """Return a few prompts with both answers, each on a line."""
    from dpo_cli.train.finish.before_after import last_words, one_line

    lines = []
    for row in rows[:SHOWN]:
        lines += ["", f"prompt     {last_words(row['prompt'])}   (temperature {row['temperature']:g})"]
        lines += [
            f"{role:<10} {one_line(row[role]['text'])[:300]}" for role in ("policy", "reference") if row[role]
        ]
    return lines
