"""`dpo audit`: what is wrong with preferences as data, and a set without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument
from dpo_cli.cli.data.files import (
    BetterOption,
    ColumnOption,
    FormatOption,
    GatherOption,
    IgnoreOption,
    LabelOption,
    SkipNullOption,
    Stated,
)

if TYPE_CHECKING:
    from dpo_cli.data.audit.audit import Audit
    from dpo_cli.recipe.schema import Source

FAULTS_FOUND = 9
"""Exit code where there are more faults than allowed: the data can be read, and should not be trained on as it is."""


def audit(
    target: Annotated[str, typer.Argument(metavar="FILE|RECIPE", help="Data file or recipe.")],
    overrides: OverridesArgument = None,
    heldout: Annotated[
        str | None, typer.Option(metavar="FILE", help="For a file: rows that must not be trained on.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL to write: the rows without those at fault.")
    ] = None,
    allow: Annotated[
        int, typer.Option(metavar="N", min=0, help="Faults to put up with before the exit code is 9.")
    ] = 0,
    as_json: JsonOption = False,
    layout: FormatOption = "auto",
    columns: ColumnOption = None,
    labels: LabelOption = None,
    better: BetterOption = None,
    gather: GatherOption = "rows",
    ignore: IgnoreOption = None,
    skip_null: SkipNullOption = False,
) -> None:
    """Find repeats, contradictions, circles, leaks and template marks in preference data. Exits with 9 on more than --allow."""
    from dpo_cli.cli.data.files import is_data_file
    from dpo_cli.data.token_view import escaped
    from dpo_cli.errors import RecipeError

    if write is not None and write.exists():
        raise RecipeError.of("--write", f"{str(write)!r} exists already", "another name")
    if is_data_file(target):
        if overrides:
            raise RecipeError.of("FILE", "a data file takes no overrides", "--format, --column or --label")
        found, sources, about = _of_file(
            target, heldout, Stated(layout, columns, labels, better, gather, ignore, skip_null)
        )
    else:
        if heldout is not None:
            raise RecipeError.of("--heldout", "a recipe says itself what is held out", "data.eval")
        found, sources, about = _of_recipe(target, overrides or [])
    if write is not None and len(sources) > 1:
        raise RecipeError.of("--write", "the recipe has several sources", "audit one file at a time")
    is_clean = found.faults <= allow
    if as_json:
        print(json.dumps({"ok": is_clean, **found.as_dict()}))
    else:
        print("\n".join(escaped(line) for line in [*about, *found.lines()]))
        print(f"{found.faults:,} faults in {found.rows:,} rows")
    if write is not None:
        _write(found, sources[0], write, quiet=as_json)
    if not is_clean:
        raise typer.Exit(FAULTS_FOUND)


def _of_file(
    path: str,
    heldout: str | None,
    stated: Stated,
) -> tuple[Audit, list[Source], list[str]]:
    from dpo_cli.cli.data.files import infer_files
    from dpo_cli.data.audit.audit import audit, dropped
    from dpo_cli.data.detect.parse import parse_rows
    from dpo_cli.data.sources.files import read_source
    from dpo_cli.data.sources.placed_rows import Problems

    files = infer_files([path] if heldout is None else [path, heldout], stated)
    problems, parts = Problems(), []
    for file in files:
        rows = read_source(file.source, "FILE", problems)
        parts.append(parse_rows(rows, file.source, "FILE", True, problems))
    problems.raise_any()
    examples = [part.examples if part else [] for part in parts]
    found = audit(examples[0], [] if heldout is None else examples[1])
    for part in parts:
        if part is not None:
            found.findings[:0] = dropped(
                {str(reason): n for reason, n in part.dropped.items()},
                {str(reason): place for reason, place in part.first_dropped.items()},
            )
    return found, [files[0].source], [line for file in files for line in file.lines()]


def _of_recipe(recipe: str, overrides: Sequence[str]) -> tuple[Audit, list[Source], list[str]]:
    from dpo_cli.cli.data.check import read_data
    from dpo_cli.data.audit.audit import audit_data
    from dpo_cli.data.serving_check import check_serving

    loaded, folder, tokenizer, data = read_data(recipe, overrides)
    about = [line for source in data.report.sources for line in source.lines()]
    found = audit_data(data, tokenizer, loaded.recipe.data.control_tokens)
    found.notes += check_serving(folder, tokenizer, data.train).warnings
    return found, loaded.recipe.data.train, about


def _write(found: Audit, source: Source, path: Path, quiet: bool) -> None:
    """Write the rows of a source that are kept and not at fault, as they are in their file."""
    from dpo_cli.data.audit.write_clean import write_clean

    kept, rows = write_clean(source, found, path)
    if not quiet:
        print(
            f"wrote {path}: {kept:,} of {rows:,} rows; same columns, so the same `columns` and `labels` read it"
        )
