"""What a recipe would do, without weights and without writing anything: `dpo train --dry-run`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dpo_cli import methods
from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.open_model import policy_start
from dpo_cli.modeling.model_folder import check_generation_config
from dpo_cli.recipe.describe import changed
from dpo_cli.recipe.load import Loaded
from dpo_cli.runs.folder import choose_folder
from dpo_cli.train.step_plan import total_steps


def plan(loaded: Loaded) -> dict[str, Any]:
    """Return what would run, name -> value.

    Raises:
        UserError: what would stop the run before its weights are loaded.
    """
    recipe = loaded.recipe
    method = methods.get(recipe.method.name)
    chosen = choose_folder(loaded)
    start = policy_start(recipe, weights=False)
    check_generation_config(start.base)
    tokenizer = load_tokenizer(replace(recipe.model, name=str(start.tokenizer)))
    # Tokenised rows are normally kept; a dry run leaves nothing behind.
    with tempfile.TemporaryDirectory() as scratch:
        config = replace(recipe.data, cache=scratch)
        data = load_data(config, tokenizer, method.needs(recipe.method))
    n_steps = total_steps(
        len(data.train), recipe.train.batch_size, recipe.train.epochs, recipe.train.max_steps
    )
    per_step = sum(group.n_tokens for group in data.train) / len(data.train) * recipe.train.batch_size
    return {
        "recipe": str(loaded.path),
        "changed": {change.key: change.value for change in changed(loaded)},
        "method": f"{recipe.method.name}: {method.paper}",
        "model": str(start.folder),
        "data": data.report.parts,
        "warnings": data.report.warnings(),
        "steps": n_steps,
        "batch_size": recipe.train.batch_size,
        "tokens_per_step": round(per_step),
        "reference": recipe.reference.source if method.needs_reference else "none",
        "run_dir": str(chosen.path),
        "note": chosen.note or "nothing was started and nothing was written",
    }


def plan_lines(facts: Mapping[str, Any]) -> list[str]:
    """Say a plan, what is changed a line a key."""
    parts = ", ".join(f"{name} {n:,}" for name, n in facts["data"].items())
    size = f"{facts['steps']:,} of {facts['batch_size']} rows, about {facts['tokens_per_step']:,} tokens each"
    return [
        f"recipe     {facts['recipe']}",
        *(
            f"{'changed' if i == 0 else '':<10} {key}: {value}"
            for i, (key, value) in enumerate(facts["changed"].items())
        ),
        f"method     {facts['method']}",
        f"model      {facts['model']}",
        f"reference  {facts['reference']}",
        f"rows       {parts}",
        f"steps      {size}",
        f"run        {facts['run_dir']}",
        *(f"warning: {warning}" for warning in facts["warnings"]),
        f"note: {facts['note']}",
    ]
