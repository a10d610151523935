"""`dpo score`: rewards of completions, from a policy and its reference or from a reward model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from dpo_cli.cli.arguments import OverridesArgument


def score(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model folder or hub id.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSONL: rows with `prompt` and `completions`.")
    ],
    overrides: OverridesArgument = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="What the model is compared with; a run and a reward model need none."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL to write; stdout by default.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Write only the best completion of each prompt.")
    ] = False,
) -> None:
    """Score completions by their reward and rank those of each prompt. Rewards of different prompts cannot be compared."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")  # see `dpo train`
    from dpo_cli.engine.runtime import Runtime
    from dpo_cli.errors import StorageError
    from dpo_cli.evaluate.pairs.score_completions import best_only, rate
    from dpo_cli.metrics import terminal
    from dpo_cli.runs.target import subject_of

    named = [f"reference.model={reference}"] if reference else []
    subject = subject_of(model, [*(overrides or []), *named])
    runtime = Runtime(subject.recipe.train.precision)
    try:
        rows = rate(subject, file, runtime)
    finally:
        runtime.close()
    if not runtime.is_main:
        return
    lines = "".join(json.dumps(best_only(row) if best else row, ensure_ascii=False) + "\n" for row in rows)
    if out is None:
        print(lines, end="")
    else:
        try:
            out.write_text(lines, encoding="utf-8")
        except OSError as error:
            raise StorageError.of(str(out), f"cannot be written: {error.strerror}", "--out FILE") from None
    missing = sum(row["best"] is None for row in rows)
    cut, length = sum("cut" in row for row in rows), subject.recipe.data.max_length
    for note in (
        subject.left_out,
        f"{missing:,} of {len(rows):,} rows not scored, see `reason`" if missing else "",
        f"{cut:,} of {len(rows):,} rows have answers that were cut to {length:,} tokens, see `cut`"
        if cut
        else "",
    ):
        if note:
            terminal.say(terminal.console(), f"note: {note}")
