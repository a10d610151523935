"""`dpo peek`: the tokens of training rows, the scored ones marked and coloured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument
from dpo_cli.cli.data.files import (
    BetterOption,
    ChatTemplateOption,
    ColumnOption,
    ControlTokenOption,
    FormatOption,
    GatherOption,
    IgnoreOption,
    LabelOption,
    MergeSystemOption,
    Rendering,
    SkipNullOption,
    Stated,
)

if TYPE_CHECKING:
    from dpo_cli.data.dataset import Data, DataRow

ROWS_READ = 512
"""Rows of a data file that are tokenised; all of them where --row names one that is not among these."""
SEPARATOR = "\u2502"


def peek(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE", help="Recipe, or a data file with --model.")
    ],
    overrides: OverridesArgument = None,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Rows to print.")] = 3,
    row: Annotated[str | None, typer.Option(metavar="FILE:LINE", help="Print this row only.")] = None,
    as_json: JsonOption = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="For a data file: folder or hub id of a model.")
    ] = None,
    layout: FormatOption = "auto",
    columns: ColumnOption = None,
    labels: LabelOption = None,
    better: BetterOption = None,
    gather: GatherOption = "rows",
    ignore: IgnoreOption = None,
    skip_null: SkipNullOption = False,
    chat_template: ChatTemplateOption = None,
    merge_system: MergeSystemOption = False,
    control_tokens: ControlTokenOption = None,
) -> None:
    """Print training rows token by token: which are prompt, context or scored, and the prompt as a server sends it."""
    from dpo_cli.cli.data.check import pair_facts, print_rows, read_data
    from dpo_cli.cli.data.files import first_rows, infer_files
    from dpo_cli.data.serving_check import served
    from dpo_cli.data.token_view import escaped
    from dpo_cli.data.tokenize.encode import Encoder

    _check_arguments(recipe, overrides, model)
    if model is None:
        loaded, _, tokenizer, data = read_data(recipe, overrides or [])
        settings = loaded.recipe.data
    else:
        rendering = Rendering(chat_template, merge_system, control_tokens)
        found = infer_files([recipe], Stated(layout, columns, labels, better, gather, ignore, skip_null))
        _, tokenizer, data = first_rows(found, model, max(n, ROWS_READ), rendering)
        if row is not None and not any(_is_at(each, row) for each in data.train_rows):
            _, tokenizer, data = first_rows(found, model, None, rendering)
        settings = rendering.data([found[0].source])
        if not as_json:
            print("\n".join(escaped(line) for line in found[0].lines()))
    encoder = Encoder(tokenizer, settings)
    rows = data.train_rows[:n] if row is None else [find_row(data, row)]
    if as_json:
        facts = [
            pair_facts(shown, tokenizer) | {"serving_prompt": vars(served(shown, encoder))} for shown in rows
        ]
        print(json.dumps({"rows": facts}))
        return
    print_rows(rows, tokenizer, SEPARATOR, encoder)


def _check_arguments(recipe: str, overrides: list[str] | None, model: str | None) -> None:
    from dpo_cli.cli.data.files import is_data_file
    from dpo_cli.errors import RecipeError

    if model is None and is_data_file(recipe):
        raise RecipeError.of("RECIPE", f"{recipe!r} is a data file", "add --model, whose tokenizer reads it")
    if model is not None and overrides:
        raise RecipeError.of("--model", "a data file takes no overrides", "--format, --column or --label")


def find_row(data: Data, place: str) -> DataRow:
    """Return the kept row at a place; its path may be shortened from the left.

    Raises:
        DataError: no kept row stands there.
    """
    from dpo_cli.errors import DataError

    rows = [*data.train_rows, *data.eval_rows, *data.test_rows]
    if found := next((row for row in rows if _is_at(row, place)), None):
        return found
    fix = f"a row such as {rows[0].group.source}; `dpo check` counts dropped rows by reason"
    raise DataError.of("--row", f"no row of '{place}' is used", fix)


def _is_at(row: DataRow, place: str) -> bool:
    return row.group.source == place or row.group.source.endswith(f"/{place}")
