"""The test before step 1: where the policy is the reference, margins are zero and the loss has its closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from dpo_cli.errors import StorageError
from dpo_cli.methods._base import Method, mean_loss
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.reference.source import ReferenceSource, reference_of
from dpo_cli.reference.spot_checks import NOISE
from dpo_cli.types import TokenGroup

N_GROUPS = 4


def some_of(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """Choose a few examples of short, middling and long ones that go through the model at once; one, where two are too many tokens."""
    by_length = sorted(range(len(lengths)), key=lambda example: lengths[example])
    few = by_length[:: max(1, len(by_length) // N_GROUPS)][:N_GROUPS]
    while len(few) > 1 and sum(lengths[example] for example in few) > max_tokens:
        few.pop()
    return few


def check_start(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    reference: ReferenceSource,
    method: Method,
    config: object,
    precision: str,
    autocast: Callable[[], AbstractContextManager[object]],
) -> str:
    """Score a few groups, without dropout, and compare with the reference's values; return a line for the user.

    Raises:
        StorageError: the policy is not the reference: another model, another template, a poisoned value.
    """
    want = method.wants(config)
    with torch.no_grad(), autocast():
        policy = score(scorer.eval(), scorer.layout(groups, want))
    theirs = reference_of(reference, groups, want, policy.total.device)
    assert theirs is not None, "there is a reference to compare with"
    sums = (policy.total - theirs.total).abs()
    off = sums / policy.tokens.sqrt()
    mean, worst, limit = off.mean().item(), off.max().item(), NOISE[precision]
    if not (mean <= limit and worst <= 10 * limit):
        place = int(off.argmax())
        key, source = [(key, group.source) for group in groups for key in group.keys][place]
        what = (
            f"policy and reference should be equal before step 1, but differ by {mean:.1e} nats per root of tokens (allowed {limit:.0e}),"
            f" most at {key} ({source}): the policy gives {policy.total[place]:.4f}, the reference {theirs.total[place]:.4f}"
        )
        raise StorageError.of(
            "self-test",
            what,
            "train.resume=never if the model folder changed; else reference.store=<a new folder>",
        )
    line = f"self-test: policy = reference to {(sums / policy.tokens).mean().item():.1e} nats per token"
    closed_form = None if method.at_reference is None else method.at_reference(config)
    if closed_form is None:
        return line
    loss = mean_loss(method.loss(policy, theirs, config), policy).item()
    return f"{line}, loss {loss:.4f} (closed form {closed_form:.4f})"
