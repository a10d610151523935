"""Reward models: a causal LM's backbone with a scalar head, in the class that transformers serves them in.

Legend: N completions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

HEAD = "score"
"""What every decoder-only `...ForSequenceClassification` calls its head."""


def is_reward_model(model: PreTrainedModel) -> bool:
    """Tell a reward model from a causal LM."""
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(model.config), None) is type(model)


def head_of_reward(model: PreTrainedModel) -> nn.Linear:
    """Return the scalar head, weight (1, D)."""
    return cast("nn.Linear", model.get_submodule(HEAD))


def scores_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return the scores (N,) of the last tokens' hidden states (N, D), in fp32: under autocast bf16 would keep eight bits of a score."""
    with torch.autocast(hidden.device.type, enabled=False):
        return nn.functional.linear(hidden.float(), head_of_reward(model).weight.float())[:, 0]


def start_head(model: PreTrainedModel, seed: int) -> None:
    """Draw the head of a model that had none: normal with variance 1 / (D + 1), which gives scores of about unit size.

    Stiennon et al. 2020, arXiv:2009.01325, and Huang et al. 2024, arXiv:2403.17031, section 4.4. The same seed draws the same head.
    """
    weight = head_of_reward(model).weight
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
    with torch.no_grad():
        weight.copy_(drawn)


def take_padding(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    controls: Collection[int],
    ends: Collection[int],
) -> None:
    """Return model and tokenizer a pad token that no row ends with.

    transformers reads the score at the rightmost token that is not the pad token, so a pad token that ends rows (many tokenizers pad
    with their end token) would move it. Without another control token both have none, and rows are scored one at a time.

    Args:
        model: the reward model; its config is changed.
        tokenizer: is changed.
        controls: ids of its control tokens: text never holds one, so the least of them that ends no row can take the place.
        ends: ids of the tokens that rows end with.
    """
    own = tokenizer.pad_token_id
    free = [token for token in sorted(controls) if token not in ends]
    pad = own if own is not None and own not in ends else next(iter(free), None)
    config: Any = model.config.get_text_config()
    config.pad_token_id = pad
    tokenizer.pad_token = None if pad is None else tokenizer.convert_ids_to_tokens(pad)
