"""The test before step 1: where the policy is the reference, margins are zero and the loss has its closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from dpo_cli.errors import NumericsError
from dpo_cli.methods._base import Method
from dpo_cli.modeling.logprobs import Scorer, score
from dpo_cli.train.loop import ReferenceSource
from dpo_cli.types import TokenGroup

MEAN_NATS_PER_TOKEN = {"fp32": 1e-5, "bf16": 2e-3}
"""Largest mean |policy - reference| per token; no completion may be over ten times that."""


def check_start(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    reference: ReferenceSource,
    method: Method,
    config: object,
    precision: str,
    autocast: Callable[[], AbstractContextManager[object]],
) -> str:
    """Score a few groups, without dropout, and compare with the reference's values; give a line for the user.

    Raises:
        NumericsError: the policy is not the reference: another model, another template, a poisoned value.
    """
    with torch.no_grad(), autocast():
        policy = score(scorer.eval(), scorer.layout(groups))
    theirs = reference.lookup(groups, policy.total.device)
    loss = (
        torch.stack([term.weight * term.losses.mean() for term in method.loss(policy, theirs, config).terms])
        .sum()
        .item()
    )
    off = (policy.total - theirs.total).abs() / policy.tokens
    mean, worst, limit = off.mean().item(), off.max().item(), MEAN_NATS_PER_TOKEN[precision]
    if not (mean <= limit and worst <= 10 * limit):
        completion = int(off.argmax())
        what = (
            f"policy and reference should be equal before step 1, but differ by {mean:.1e} nats per token"
            f" (worst {worst:.1e}, at {groups[completion // len(groups[0].completions)].source}); allowed: mean {limit:.0e}"
        )
        raise NumericsError.of(
            "self-test",
            what,
            "train.resume=never if the model folder changed; else reference.store=<a new folder>",
        )
    expected = method.at_reference(config)
    return f"self-test: policy = reference to {mean:.1e} nats per token, loss {loss:.4f} (closed form {expected:.4f})"
