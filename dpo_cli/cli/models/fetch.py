"""`dpo fetch`: a recipe's model, tokenizer and data, before a job without network."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument


def fetch(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Download what a recipe names on a hub (model, tokenizer, reference, data), and say what lies where and at which commit."""
    from dpo_cli.recipe.load import load

    # The recipe first: a typo is reported before transformers is imported.
    loaded = load(recipe, overrides or [])
    from dpo_cli.preflight.fetch import fetch as bring

    found = bring(loaded.recipe)
    following = f"HF_HUB_OFFLINE=1 {shlex.join(['dpo', 'train', recipe, *(overrides or [])])}"
    if as_json:
        facts = [{**asdict(each), "place": str(each.place)} for each in found]
        print(json.dumps({"fetched": facts, "next": following}))
        return
    print("\n".join(line for each in found for line in each.lines()))
    print(f"next: {following}")
