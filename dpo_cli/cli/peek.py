"""`dpo peek`: the tokens of training rows, the scored ones marked and coloured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dpo_cli.data.load import Data, DataRow

SEPARATOR = "\u2502"


def peek(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, as in `train.seed=1`.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Rows to print.")] = 3,
    row: Annotated[str | None, typer.Option(help="FILE:LINE of one row.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Print rows token by token: what is prompt, what is context, what is scored."""
    from rich.console import Console

    from dpo_cli.cli.check import pair_facts, print_row, read_data

    _, _, tokenizer, data = read_data(recipe, overrides or [])
    rows = data.train_rows[:n] if row is None else [find_row(data, row)]
    if as_json:
        print(json.dumps({"rows": [pair_facts(shown, tokenizer) for shown in rows]}))
        return
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    for shown in rows:
        print_row(console, shown, tokenizer, SEPARATOR)


def find_row(data: Data, place: str) -> DataRow:
    """Give the kept row at a place; its path may be shortened from the left.

    Raises:
        DataError: no kept row stands there.
    """
    from dpo_cli.errors import DataError

    rows = [*data.train_rows, *data.eval_rows, *data.test_rows]
    for row in rows:
        if row.group.source == place or row.group.source.endswith(f"/{place}"):
            return row
    fix = f"a row such as {rows[0].group.source}; `dpo check` counts dropped rows by reason"
    raise DataError.of("--row", f"no row of '{place}' is used", fix)
