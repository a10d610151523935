"""Loading what a run trains, and the same again from what it saved: all weights, or an adapter on a frozen base."""

from __future__ import annotations

from typing import TypedDict

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.data.dataset import Data
from dpo_cli.data.tokenize.tokenizer import Vocabulary
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import ModelError
from dpo_cli.modeling.adapters import attach, continue_adapter
from dpo_cli.modeling.hub import Start, model_start
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.model_folder import inspect_folder
from dpo_cli.modeling.reward_head import take_padding
from dpo_cli.recipe.schema import Recipe


class Storage(TypedDict):
    """How a model's weights are kept: what `load_model` takes."""

    dtype: torch.dtype
    quantize: str | None


FULL_LR = 5e-6
"""Learning rates up to here are usual for all weights; an adapter, which starts at zero, usually takes ten times as much."""


def policy_start(recipe: Recipe, *, weights: bool) -> Start:
    """Find the model that a recipe starts from and check what can be checked without its weights.

    Args:
        recipe: the run's.
        weights: fetch the weights too.

    Raises:
        ModelError: no such model; an adapter on an adapter.
    """
    start = model_start(recipe.model.name, recipe.model.revision, weights=weights)
    if start.adapter is not None and recipe.model.adapter is not None:
        what = f"{start.adapter} is an adapter already, and goes on being trained with its own settings"
        raise ModelError.of("model.adapter", what, "model.adapter: null, or a whole model as model.name")
    if recipe.model.quantize is not None and recipe.model.adapter is None and start.adapter is None:
        what = "quantised weights cannot be trained, only an adapter beside them"
        raise ModelError.of("model.quantize", what, "model.adapter={rank: 16}, or model.quantize: null")
    if weights:
        inspect_folder(start.base)
    return start


def load_policy(
    recipe: Recipe, runtime: Runtime, start: Start, tokenizer: PreTrainedTokenizerBase, data: Data
) -> PreTrainedModel:
    """Return the model to train: all weights in `train.weights`, or an adapter in fp32 on a frozen base, in bf16 where the run computes in it."""
    recipe_adapter, dropout = recipe.model.adapter, recipe.train.dropout
    storage = storage_of(recipe, runtime, start)
    if not methods.get(recipe.method.name).trains_head:
        model = load_model(start.base, len(tokenizer), dropout=dropout, **storage)
    else:
        seed = recipe.train.seed
        model = load_reward_model(start.base, len(tokenizer), seed, dropout=dropout, **storage)
        ends = {int(ids[-1]) for group in [*data.train, *data.eval] for ids in group.completions}
        take_padding(model, tokenizer, Vocabulary(tokenizer).special, ends)
    if start.adapter is not None:
        continue_adapter(model, start.adapter)
    elif recipe_adapter is not None:
        attach(model, recipe_adapter, recipe.train.seed)
    return model


def load_start(start: Start, vocabulary: int, storage: Storage | None = None) -> PreTrainedModel:
    """Return a language model as it is before any step, with its adapter where it has one: a reference. In fp32 unless said otherwise."""
    model = load_model(start.base, vocabulary, **(storage or Storage(dtype=torch.float32, quantize=None)))
    if start.adapter is not None:
        continue_adapter(model, start.adapter)
    return model


def storage_of(recipe: Recipe, runtime: Runtime, start: Start) -> Storage:
    """Return how weights are kept: in bf16 where the run computes in bf16 and they are frozen or the recipe says so, in 4 bits where it does."""
    is_frozen = recipe.model.adapter is not None or start.adapter is not None
    is_low = runtime.precision == "bf16" and (is_frozen or recipe.train.weights == "bf16")
    dtype = torch.bfloat16 if is_low else torch.float32
    return Storage(dtype=dtype, quantize=recipe.model.quantize)


def advice(recipe: Recipe, start: Start) -> list[str]:
    """Return where the learning rate looks like one for the other way of training."""
    lr, is_adapted = recipe.optim.lr, recipe.model.adapter is not None or start.adapter is not None
    if is_adapted and lr <= FULL_LR:
        return [
            f"optim.lr={lr:g} is usual for all weights; an adapter usually takes about ten times as much: optim.lr={10 * lr:g}"
        ]
    return []
