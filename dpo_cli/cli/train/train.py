"""`dpo train`: the whole job."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run: steps, rows, folder, changed keys.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model as a recipe says, measure it on held-out rows and save it. The same command again goes on where it stopped."""
    from dpo_cli import methods
    from dpo_cli.cli import here
    from dpo_cli.recipe.load import load

    # A dry run may stand on another machine than the run: a cluster's login node.
    loaded = load(recipe, overrides or []) if dry_run else load(recipe, overrides or [], here.machine)
    if dry_run:
        from dpo_cli.preflight.dry_run import plan, plan_lines

        facts = plan(loaded)
        print(json.dumps(facts) if as_json else "\n".join(plan_lines(facts)))
        return
    # Rows differ in length, and oneDNN keeps a compiled kernel per shape, 1,024 of them: 0.3 GiB more after 16 steps on a CPU.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    from dpo_cli.train.run import train as run

    plugin = "" if (name := loaded.recipe.method.name) in methods.names() else name.partition(".")[0]
    options = ["--plugin", plugin] if plugin else []
    status = run(loaded, shlex.join(["dpo", "train", recipe, *options, *(overrides or [])]))
    if as_json:
        with suppress(BrokenPipeError):  # nobody reads it; the run is done all the same
            print(json.dumps(asdict(status)), flush=True)
