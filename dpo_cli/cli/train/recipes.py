"""`dpo recipes`: which recipes there are, and what one resolves to."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument

app = typer.Typer(help="List, show and copy recipes; print their JSON schema.", no_args_is_help=True)

MEMORY_NOTE = (
    "memory: fp32 weights, gradients and AdamW's moments of all weights, or of the adapter beside bf16 weights; what it fits has room"
    " for activations too. A reference in the store takes none. ~: size by the model's name. More than one device needs sharding (FSDP),"
    " which is not there yet."
)


@app.command("ls")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the shipped recipes. With method, data, memory, paper and what each is for."""
    from dpo_cli.cli.data.columns import table, width, wrapped
    from dpo_cli.recipe.find import shipped

    rows = [_facts(name, path) for name, path in shipped().items()]
    if as_json:
        print(json.dumps({"recipes": rows}))
        return
    cells = [
        (
            row["name"],
            row["method"],
            row["takes"],
            row["memory"]["text"] if row["memory"] else "model not here",
            *re.findall(r"arXiv:\S+", row["paper"])[:1],
        )
        for row in rows
    ]
    notes = [f"{row['about']} ({', '.join(row['data'])})" for row in rows]
    heads = ("recipe", "method", "trains on", "memory", "paper")
    print("\n".join([*table(heads, cells, notes, width()), "", *wrapped(MEMORY_NOTE, width())]))


def _facts(name: str, path: Path) -> dict[str, Any]:
    """Return what is listed of a recipe; `memory` is None where neither a folder nor a name says how large its model is."""
    from dpo_cli import methods
    from dpo_cli.data.adapt import data_of
    from dpo_cli.modeling.sizes.memory import need_of, size_of
    from dpo_cli.recipe.describe import header
    from dpo_cli.recipe.load import load, shown

    recipe = load(str(path)).recipe
    method, size = methods.get(recipe.method.name), size_of(recipe.model.name)
    return {
        "name": name,
        "method": recipe.method.name,
        "paper": method.paper,
        "data_kind": method.data,
        "takes": data_of(method.data),
        "data": [shown(Path(s.path)) if Path(s.path).is_absolute() else s.path for s in recipe.data.train],
        "memory": None if size is None else need_of(recipe, size).as_dict(),
        "about": header(path),
        "path": str(path),
    }


@app.command()
def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print only what differs from the defaults, and who set it.")
    ] = False,
) -> None:
    """Print every key of a recipe, with parents and overrides applied."""
    from dpo_cli.recipe.describe import changed, to_yaml
    from dpo_cli.recipe.load import load

    loaded = load(recipe, overrides or [])
    if diff and as_json:
        print(json.dumps({change.key: change._asdict() for change in changed(loaded)}))
    elif diff:
        for change in changed(loaded):
            default = "" if change.default is None else f" (default {change.default})"
            print(f"{change.key} = {change.value}{default}  [{change.origin}]")
    elif as_json:
        print(json.dumps(dataclasses.asdict(loaded.recipe)))
    else:
        print(to_yaml(loaded.recipe), end="")


@app.command("cp")
def copy(
    recipe: RecipeArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="File or folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite DEST.")] = False,
) -> None:
    """Copy a recipe to edit. Its relative paths become absolute, so that it works where it lands."""
    from dpo_cli.errors import RecipeError
    from dpo_cli.recipe.find import find
    from dpo_cli.recipe.relocate import relocated

    path = find(recipe)
    target = destination / path.name if destination.is_dir() else destination
    if target.exists() and not force:
        raise RecipeError.of(str(target), "exists already", "another name, or --force to overwrite it")
    if not target.parent.is_dir():
        raise RecipeError.of(str(target.parent), "no such folder", "create it, or name another one")
    target.write_text(relocated(path), encoding="utf-8")
    print(target)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from dpo_cli.recipe.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
