"""What a model's config says of its size: no weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from dpo_cli.errors import ModelError
from dpo_cli.methods._memory import Size
from dpo_cli.modeling.model_folder import check_config, loader_of
from dpo_cli.modeling.silence_transformers import quiet

_NO_LIMIT = 2**31


class ModelSize(NamedTuple):
    """What a config says of a model's size."""

    weights: int
    positions: int
    """Longest row that the model was made for, in tokens."""


def model_size(folder: Path) -> ModelSize:
    """Return the size of the model in a folder; no weight is read.

    Raises:
        ModelError: no folder, or no config of a plain causal LM.
    """
    if not (folder / "config.json").is_file():
        raise ModelError.of(
            str(folder), "not a model folder: no config.json", "name the folder that holds it"
        )
    model = _empty(folder)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return ModelSize(model.num_parameters(), positions or _NO_LIMIT)


def weight_names(folder: Path) -> list[str]:
    """Return the names of the weights of the model that a folder's config describes.

    Raises:
        ModelError: no config of a plain causal LM.
    """
    return [name for name, _ in _empty(folder).named_parameters()]


def _empty(folder: Path) -> PreTrainedModel:
    config = check_config(folder)
    with quiet(), torch.device("meta"):
        model: PreTrainedModel = loader_of(config).from_config(config, trust_remote_code=False)
    return model


def stated_size(folder: Path) -> Size | None:
    """Count the parameters of the model that a folder's config describes; None where transformers has none such."""
    try:
        return Size(model_size(folder).weights, is_exact=True)
    except (ModelError, OSError, ValueError, TypeError, StrictDataclassError):
        return None
