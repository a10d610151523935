"""What `dpo train` finds wrong with models before it loads one, found without their weights, so that `dpo check` says the same."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.engine.open_model import policy_start
from dpo_cli.modeling.hub import Start, commit_of, model_start
from dpo_cli.modeling.model_folder import check_config, inspect_folder
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference.provide import check_vocabulary


def check_models(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check the models that a recipe names; the weights of one on the hub are not fetched, and not looked for.

    Args:
        recipe: the run's.
        tokenizer: the policy's.

    Raises:
        ModelError: no such model, none that can be trained, no weights, an adapter on an adapter, a reference with another vocabulary.
    """
    start = policy_start(recipe, weights=False)
    _check_base(start)
    named = recipe.reference.model
    is_needed = methods.get(recipe.method.name).needs_reference and recipe.reference.source != "none"
    if named is None or not is_needed:
        return
    reference = model_start(named, recipe.reference.revision, weights=False, key="reference.model")
    if reference.folder.resolve() != start.folder.resolve():
        _check_base(reference)
        check_vocabulary(recipe, reference.tokenizer, tokenizer)


def _check_base(start: Start) -> None:
    if commit_of(start.base) is None:
        inspect_folder(start.base)
    else:
        check_config(start.base)
