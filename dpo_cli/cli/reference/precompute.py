"""`dpo precompute-ref`: fill the reference store for a recipe."""

from __future__ import annotations

import json
import os

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument
from dpo_cli.errors import Stopped


def precompute_ref(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Score a recipe's rows with its reference, once for all runs; only what is missing is scored. `dpo train` does it too."""
    from dpo_cli.cli import here
    from dpo_cli.recipe.load import load

    loaded = load(recipe, overrides or [], here.reference)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")  # see `dpo train`
    from dpo_cli.metrics import terminal
    from dpo_cli.reference.precompute import open_session, precompute
    from dpo_cli.train.signals import listening

    try:
        with listening(), open_session(loaded) as session:
            done = precompute(session)
            if not session.runtime.is_main:
                return
    except Stopped as stop:
        stop.message = f"{stop.by}: what is committed is kept, and the same command goes on"
        raise
    for line in done.lines():
        terminal.say(terminal.console(), line)
    if as_json:
        print(json.dumps(done.as_dict()))
