"""`dpo chat`: talk to a trained model, side by side with another."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def chat(
    run: Annotated[str, typer.Argument(help="A run's folder, a model's, an adapter's, or a hub id.")],
    against: Annotated[
        str | None,
        typer.Option("--against", help="Another one to answer too; `reference`: what the run began with."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy; larger is more varied.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Talk to a model: a line is a turn, an empty one or Ctrl-D ends. Reads a pipe too, a question a line."""
    from dpo_cli.data.show import escaped
    from dpo_cli.train.chat import converse, speakers

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
