"""`dpo eval`: how good a model is on held-out pairs, how sure that is, and what explains it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, SplitOption, TargetArgument


def evaluate(
    target: TargetArgument,
    overrides: OverridesArgument = None,
    split: SplitOption = "eval",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where to keep eval.json and pairs.parquet; a run has its own place."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on held-out pairs: accuracy with its interval, calibration, what length explains, drift from the reference."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")  # see `dpo train`
    from dpo_cli.engine.runtime import Runtime
    from dpo_cli.evaluate.pairs.run_eval import measure_into
    from dpo_cli.metrics import terminal
    from dpo_cli.runs.target import subject_of

    subject = subject_of(target, overrides or [])
    runtime = Runtime(subject.recipe.train.precision)
    try:
        measured, folder = measure_into(subject, split, out, runtime)
    finally:
        runtime.close()
    if not runtime.is_main:
        return
    if as_json:
        print(json.dumps(measured.facts))
        return
    print("\n".join(lines(measured.facts)))
    kept = (
        f"files              {folder}: eval.json  pairs.parquet"
        if folder
        else "nothing kept: --out FOLDER keeps rows"
    )
    terminal.say(terminal.console(), kept)


def lines(facts: dict[str, Any]) -> list[str]:
    """Say the figures, one subject a line."""
    lengths = [f"{name} {share(each)} (n={each['n']:,})" for name, each in facts["by_length"].items()]
    counts = f"n={facts['n']:,} over {facts['prompts']:,} prompts   ties {facts['ties']:,}"
    margin = f"{facts['margin']:+.4g}{interval(facts['margin_ci'], '+.4g')}"
    lines = [
        f"{facts['what']:<18} {share(facts)}   {counts}",
        f"{'margin':<18} {margin}   calibration ECE {facts['ece']:.3f}",
        f"{'needs no training':<18} {_baselines(facts['baselines'])}",
        f"{'by length':<18} {'   '.join(lengths)}",
        f"{'length-matched':<18} {share(facts['length_matched'])}   (longer wins: 0.5 here)",
    ]
    if (moved := facts["drift"]) is not None:
        lines.append(
            f"{'drift':<18} log-ratio to the reference: chosen {moved['chosen']:+.3g}, rejected {moved['rejected']:+.3g} nats"
        )
    if len(facts["sets"]) > 1:
        lines += [
            f"{'set ' + name:<18} {share(each)}   n={each['n']:,}" for name, each in facts["sets"].items()
        ]
    lines.append(f"{'compared with':<18} {facts['reference'] or 'no reference'}   {facts['form']}")
    return [*lines, *([f"note: {facts['left_out']}"] if facts["left_out"] else [])]


def share(facts: dict[str, Any]) -> str:
    """Write an accuracy and its interval."""
    if facts["accuracy"] is None:
        return "-"
    return f"{facts['accuracy']:.3f}{interval(facts['ci'], '.3f')}"


def interval(ci: Any, spec: str) -> str:
    """Write an interval behind its figure; nothing where there is none."""
    return f" [{ci[0]:{spec}}, {ci[1]:{spec}}]" if ci else ""


def _baselines(found: dict[str, float | None]) -> str:
    names = {
        "longer_wins": '"longer wins"',
        "shorter_wins": '"shorter wins"',
        "reference_sum": "reference by sum",
        "reference_mean": "per token",
    }
    return "   ".join(f"{names[name]} {value:.3f}" for name, value in found.items() if value is not None)
