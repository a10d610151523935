"""`dpo check`: everything short of loading weights."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.dataset import Data, DataRow
    from dpo_cli.data.serving_check import Served, Serving
    from dpo_cli.data.token_view import Run
    from dpo_cli.data.tokenize.encode import Encoder
    from dpo_cli.methods._memory import Need
    from dpo_cli.recipe.load import Loaded
    from dpo_cli.recipe.schema import Recipe
    from dpo_cli.types import TokenGroup

UNWRITTEN = 9
"""Exit code where the template leaves out parts of the rows."""
PART_STYLES = {"prompt": "dim", "context": "yellow", "scored": "bold green"}


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Rows to print as the model sees them.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Check recipe, data, tokenizer and template without loading weights, and say what memory and which methods fit."""
    from dpo_cli import methods
    from dpo_cli.data.adapt import count_rows
    from dpo_cli.data.audit.audit import audit_data
    from dpo_cli.data.serving_check import check_serving, served
    from dpo_cli.data.tokenize.encode import Encoder
    from dpo_cli.methods._advice import advise
    from dpo_cli.modeling.limits import check_limits
    from dpo_cli.preflight.startable import check_models

    loaded, folder, tokenizer, data = read_data(recipe, overrides or [])
    check_models(loaded.recipe, tokenizer)
    serving = check_serving(folder, tokenizer, data.train)
    config, method = loaded.recipe.method, methods.get(loaded.recipe.method.name)
    limits = check_limits(folder, len(tokenizer), [*data.train, *data.eval])
    data.report.advice = [*limits, *method.advice(config, data.train)]
    need, free = _memory(loaded.recipe, folder)
    advice = advise(count_rows(data.train_rows), config, need, free)
    audited = audit_data(data, tokenizer, loaded.recipe.data.control_tokens)
    data.report.audited = audited.warnings()
    rows, unwritten = data.train_rows[:show], data.report.unwritten()
    first = served(data.train_rows[0], Encoder(tokenizer, loaded.recipe.data))
    following = shlex.join(["dpo", "train", recipe, *(overrides or [])])
    if as_json:
        facts = {
            "ok": not unwritten,
            "recipe": str(loaded.path),
            "digest": loaded.digest,
            "method": config.name,
            "form": method.form(config),
            "data": data.report.as_dict(),
            "memory": None if need is None else {**need.as_dict(), "free_bytes": free},
            "advice": [vars(each) for each in advice],
            "audit": audited.as_dict(),
            "serving": vars(serving),
            "serving_prompt": vars(first),
            "pairs": [pair_facts(row, tokenizer) for row in rows],
            "warnings": [
                *unwritten,
                *data.report.warnings(),
                *serving.warnings,
                *([first.warning] if first.warning else []),
            ],
            "next": following,
        }
        print(json.dumps(facts))
    else:
        _print_report(loaded, data, serving, first, tokenizer, rows)
        if need is not None:
            print(_memory_line(need, free))
        print("which method (rules of thumb, first choice first):", *advice, sep="\n  ")
        print(*_ending(unwritten, following), sep="\n")
    if unwritten:
        raise typer.Exit(UNWRITTEN)


def _memory_line(need: Need, free: int) -> str:
    from dpo_cli.methods._memory import gib

    beside = ", the reference beside them" if need.is_reference_live else ""
    return f"memory: {need.size} parameters, all trained{beside}: {gib(need.n_bytes)} before activations, {gib(free)} free"


def _ending(unwritten: Sequence[str], following: str) -> list[str]:
    """Return the last lines: whether all fits together, and what comes next."""
    from dpo_cli.data.token_view import escaped

    if not unwritten:
        return [
            "OK: recipe, data, tokenizer and template fit together; nothing was started",
            f"next: {following}",
        ]
    return [
        "NOT OK: the chat template leaves out parts of the rows, which the model would not read; nothing was started",
        *(escaped(f"  {line}") for line in unwritten),
        "next: model.chat_template=PATH of a template that writes them, or rows without them",
    ]


def read_data(recipe: str, overrides: Sequence[str]) -> tuple[Loaded, Path, PreTrainedTokenizerBase, Data]:
    """Return a recipe, its model's folder, its tokenizer and its data.

    Raises:
        UserError: whatever is wrong with them.
    """
    from dpo_cli import methods
    from dpo_cli.recipe.load import load

    # The recipe first: a typo is reported before transformers is imported.
    loaded = load(recipe, overrides)
    from dpo_cli.data.load import load_data
    from dpo_cli.data.tokenize.tokenizer import load_tokenizer
    from dpo_cli.modeling.hub import model_start
    from dpo_cli.modeling.model_folder import check_generation_config

    model = loaded.recipe.model
    start = model_start(model.name, model.revision, weights=False)
    folder = start.base
    check_generation_config(folder)
    tokenizer = load_tokenizer(replace(model, name=str(start.tokenizer)))
    method = loaded.recipe.method
    data = load_data(loaded.recipe.data, tokenizer, methods.get(method.name).needs(method))
    return loaded, folder, tokenizer, data


def _memory(recipe: Recipe, folder: Path) -> tuple[Need | None, int]:
    """Return what training needs in memory, None where nothing says how large the model is, and what is free where it would run."""
    import torch

    from dpo_cli.modeling.precision import free_bytes
    from dpo_cli.modeling.sizes.memory import need_of, size_of, stored_size
    from dpo_cli.modeling.sizes.size import stated_size

    size = stored_size(folder) or stated_size(folder) or size_of(recipe.model.name)
    free = free_bytes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return None if size is None else need_of(recipe, size), free


def _print_report(
    loaded: Loaded,
    data: Data,
    serving: Serving,
    first: Served,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[DataRow],
) -> None:
    from rich.console import Console

    from dpo_cli import methods
    from dpo_cli.data.token_view import escaped

    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    console.print(f"recipe: {loaded.path}")
    method = loaded.recipe.method
    console.print(f"method: {methods.get(method.name).form(method)}")
    for line in data.report.lines():
        console.print(escaped(line))
    pad = f"pad {serving.pad!r}" if serving.pad else "no pad token"
    console.print(f"tokens: answers end with {serving.answer_end!r}, generation stops at {serving.stops}")
    console.print(f"        BOS {serving.bos!r}, {pad} (lengths decide what is scored, never the pad id)")
    for warning in serving.warnings:
        console.print(escaped(f"warning: {warning}"))
    for line in first.lines("of the first row"):
        console.print(escaped(line))
    for row in rows:
        print_row(console, row, tokenizer, separator="")


def print_rows(
    rows: Sequence[DataRow],
    tokenizer: PreTrainedTokenizerBase,
    separator: str = "",
    encoder: Encoder | None = None,
) -> None:
    """Print rows as the model sees them; with an encoder also what a server sends for each one's prompt."""
    from rich.console import Console

    from dpo_cli.data.serving_check import served
    from dpo_cli.data.token_view import escaped

    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    for row in rows:
        print_row(console, row, tokenizer, separator)
        for line in served(row, encoder).lines() if encoder else ():
            console.print(escaped(f"  {line}"))


def print_row(console: Console, row: DataRow, tokenizer: PreTrainedTokenizerBase, separator: str) -> None:
    """Print a pair as the model sees it: each line says whether its tokens are prompt, context or scored."""
    from dpo_cli.data.token_view import completion_runs, escaped, prompt_run

    console.print(escaped(f"row {row.group.source}"))
    _print_run(console, prompt_run(row.group, tokenizer), separator)
    for k, name in enumerate(completion_names(row.group)):
        console.print(f"  {name}: {len(row.group.completions[k])} tokens, {row.group.scored[k]} scored")
        for run in completion_runs(row.group, k, tokenizer):
            _print_run(console, run, separator)


def completion_names(group: TokenGroup) -> tuple[str, ...]:
    """Return what a group's completions are."""
    n = len(group.completions)
    if n > 1:
        return ("chosen", "rejected") if n == 2 else tuple(f"place {k} of {n}" for k in range(1, n + 1))
    return ("completion" if group.label is None else "wanted" if group.label else "not wanted",)


def _print_run(console: Console, run: Run, separator: str) -> None:
    from rich.text import Text

    body = Text(separator.join(run.pieces), style=PART_STYLES[run.part])
    console.print(Text(f"    {run.part:<7} | ") + body)


def pair_facts(row: DataRow, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return a pair as plain values for JSON: ids, and texts by part."""
    from dpo_cli.data.token_view import completion_runs, prompt_run

    prompt = prompt_run(row.group, tokenizer)
    return {
        "source": row.group.source,
        "prompt": {"ids": prompt.ids, "tokens": prompt.pieces},
        "completions": [
            [
                {"part": run.part, "ids": run.ids, "tokens": run.pieces}
                for run in completion_runs(row.group, k, tokenizer)
            ]
            for k in range(len(row.group.completions))
        ],
    }
