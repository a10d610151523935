"""The load-balancing loss of a mixture of experts: transformers' own, over the tokens of a packed or padded row."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo_cli.errors import ModelError
from dpo_cli.modeling.layout import Row

_FUNCTION = "load_balancing_loss_func"
_TAKES = ("gate_logits", "num_experts", "top_k", "attention_mask")


@dataclass(frozen=True)
class Router:
    """How a model's routers are kept from sending all tokens to the same experts."""

    coefficient: float
    """What the loss counts beside the method's."""
    n_experts: int
    top_k: int
    balance: Callable[..., Tensor]
    """transformers' function for the architecture: Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6, over all layers at once."""

    def loss(self, router_logits: Any, row: Row) -> Tensor:
        """Return n_experts * sum_e (share of tokens routed to e) * (mean probability of e) over a row's tokens, (); top_k where all is even.

        Each completion's tokens and its prompt's count once, as they stand in padded rows: a prompt that is computed once for K completions
        counts K times.
        """
        return self.balance(router_logits, self.n_experts, self.top_k, _weights(row))


def router_of(model: PreTrainedModel, wanted: float | None) -> Router | None:
    """Return what balances a model's routers; None where it has none, or the coefficient is 0.

    Args:
        model: a causal LM.
        wanted: the coefficient; None takes the one in the model's config.

    Raises:
        ModelError: a coefficient for a model whose router loss transformers does not compute.
    """
    balance = getattr(sys.modules[type(model).__module__], _FUNCTION, None)
    own = getattr(model, "router_aux_loss_coef", None)
    if own is None or balance is None or tuple(inspect.signature(balance).parameters) != _TAKES:
        if wanted:
            what = f"{type(model).__name__} has no router loss that transformers computes"
            raise ModelError.of("model.router_loss", what, "model.router_loss: null")
        return None
    coefficient = float(own if wanted is None else wanted)
    n_experts, top_k = model.num_experts, model.num_experts_per_tok
    return Router(coefficient, int(n_experts), int(top_k), balance) if coefficient else None  # type: ignore[arg-type]


def _weights(row: Row) -> Tensor:
    """Return how often each position counts, (R, T) fp32."""
    if row.attention_mask is not None:
        return row.attention_mask.float()
    assert row.segments is not None, "a row is packed or padded"
    counts = np.zeros(len(row.segments.pieces), np.int64)
    np.add.at(counts, np.array(row.segments.key_pieces).ravel(), 1)
    counted = np.repeat(counts, row.segments.pieces)
    return torch.from_numpy(counted).to(row.input_ids.device, torch.float32, non_blocking=True)[None]
