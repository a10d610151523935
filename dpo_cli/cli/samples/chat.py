"""`dpo chat`: talk to a trained model, side by side with another."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dpo_cli.cli.arguments import SeedOption


def chat(
    run: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Folder of a run, a model or an adapter, or a hub id.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Another one to answer too; `reference` is what the run began with."
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="System prompt; by default the one that the run's data had."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0, help="0 is greedy; larger is more varied.")
    ] = 0.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer, in tokens.")
    ] = 256,
    seed: SeedOption = 0,
) -> None:
    """Talk to a model: each line is a turn, an empty line or Ctrl-D ends. Reads questions from a pipe too."""
    from dpo_cli.data.token_view import escaped
    from dpo_cli.evaluate.samples.chat import converse, speakers

    everyone = speakers(run, against, system)
    is_terminal = sys.stdin.isatty()
    while True:
        if is_terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        converse(
            everyone,
            line.strip(),
            temperature,
            max_tokens,
            seed,
            lambda text: print("\n".join(map(escaped, text.split("\n"))), end="", flush=True),
        )
