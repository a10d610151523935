"""`dpo init`: from files and a model to a recipe that states everything that was inferred."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

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

SAMPLED_ROWS = 512
"""Rows that are tokenised to see how long they are."""


def init(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Data files, globs or hub data sets.")
    ],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Folder of a model or of a finished run, or a hub id.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recipe to write; by default the first file's name, .yaml."),
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
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Rows to print as the model sees them.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe if it is there.")] = False,
) -> None:
    """Write a recipe for data files and a model: recognises the rows, shows some, sizes the run; asks where two readings fit."""
    from dpo_cli.errors import RecipeError

    target = out or Path(f"{Path(files[0]).name.split('.')[0] or 'recipe'}.yaml")
    if target.exists() and not force:
        raise RecipeError.of(str(target), "exists already", "--out another.yaml, or --force to overwrite it")
    if not target.parent.is_dir():
        raise RecipeError.of(str(target.parent), "no such folder", "create it, or name another one")
    # The data first: a mistake there is reported before transformers is imported.
    from dpo_cli.cli.data.files import first_rows, infer_files

    found = infer_files(files, Stated(layout, columns, labels, better, gather, ignore, skip_null))
    from dpo_cli.cli.data.check import print_rows
    from dpo_cli.data.audit.audit import audit_data
    from dpo_cli.data.token_view import escaped
    from dpo_cli.modeling.sizes.size import model_size
    from dpo_cli.preflight.draft_recipe import Plan, draft, this_machine

    rendering = Rendering(chat_template, merge_system, control_tokens)
    folder, tokenizer, data = first_rows(found, model, SAMPLED_ROWS, rendering)
    size, machine, tokens = model_size(folder), this_machine(), control_tokens or ()
    plan = Plan(model, size, found, data.train, machine, chat_template, merge_system, tokens)
    text = draft(plan, target.parent)
    print("\n".join(escaped(line) for source in found for line in source.lines()))
    print_rows(data.train_rows[:show], tokenizer)
    marks = audit_data(data, tokenizer, tokens).template_marks
    for warning in [*data.report.unwritten(), *marks, *plan.warnings()]:
        print(escaped(f"warning: {warning}"))
    target.write_text(text, encoding="utf-8")
    print(f"wrote {target}\nnext: {shlex.join(['dpo', 'check', str(target)])}")
