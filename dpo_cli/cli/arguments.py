"""Arguments and options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped one (`dpo recipes ls`)."),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Changes to the recipe, as in optim.lr=1e-6; ~KEY goes back to the default.",
    ),
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="RUN|MODEL|RECIPE", help="Run folder, model folder, hub id or recipe.")
]
SplitOption = Annotated[
    Literal["eval", "test"],
    typer.Option(help="Which held-out rows; keep `test` for one final measurement."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of text.")]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, help="Another seed gives other answers.")]


def examples(*lines: str) -> str:
    """Return command lines as the end of a command's help, each on a line of its own, unwrapped."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])
