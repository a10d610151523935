"""One optimizer step: a step is a fixed set of examples, micro-batches and ranks are how it is computed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dpo_cli.methods._base import TIE_NATS, annotated, with_ties
from dpo_cli.modeling.oom import naming_rows
from dpo_cli.modeling.scorer import score
from dpo_cli.reference.source import reference_of
from dpo_cli.train.nonfinite import spread
from dpo_cli.train.optim import learning_rate
from dpo_cli.train.state import Run, Trace
from dpo_cli.train.step_plan import examples_of_step, micro_batches
from dpo_cli.types import Batch, LogProbs, LossOutput, Term, TokenGroup, Unit

if TYPE_CHECKING:
    pass


def bins_of_step(run: Run) -> list[tuple[int, ...]]:
    """Return this rank's micro-batches of the next step, a tuple of example numbers each."""
    train, runtime = run.recipe.train, run.runtime
    examples = examples_of_step(run.step, len(run.groups), train.batch_size, train.seed)
    return micro_batches(examples, run.lengths, runtime.world, run.token_budget)[runtime.rank]


def optimizer_step(run: Run) -> None:
    """Do one step: score, backward, clip and update, without a host sync.

    Every rank knows the whole step's examples, so units are counted without a collective.
    """
    train = run.recipe.train
    examples = examples_of_step(run.step, len(run.groups), train.batch_size, train.seed)
    bins = bins_of_step(run)
    units = count_units([run.groups[example] for example in examples])
    seed_step(train.seed, run.step, run.runtime.rank)
    config: Any = run.recipe.method
    want = run.method.wants(config)
    prepared = [run.method.prepare(Step(run, examples, bins), config)] if run.method.prepare else []
    run.model.train()
    n_computed, losses, notes = 0, [], []
    for number, members in enumerate(bins):
        batch = _batch(run, members, examples)
        with run.runtime.sync_only(number == len(bins) - 1, run.model), naming_rows(batch.groups):
            row = run.scorer.layout(batch.groups, want)
            with run.runtime.autocast():
                policy = score(run.model, row)
            out = _balanced(run, policy, batch, _loss(run, policy, batch, prepared))
            pull = Pull(policy.total)
            loss = spread(normalised(out, units) * batch.weight)
            # DDP averages gradients over ranks: times the world size, the mean becomes the sum.
            run.runtime.backward(loss * run.runtime.world)
        pulled = pull.per_group(batch.groups) * (len(examples) / run.runtime.world)
        notes.append((batch, members, out, pulled, policy.router))
        losses.append(loss.detach())
        n_computed += row.n_computed
    for note in notes:  # after the last micro-batch: a step that runs out of memory is done again
        _note(run, *note)
    is_bad = _update(run)
    _record(run, bins, losses, is_bad)
    tokens = sum(run.lengths[example] for example in examples)
    run.speed.add(run.step + 1, len(examples), tokens, max(tokens, n_computed * run.runtime.world))


def count_units(groups: Sequence[TokenGroup]) -> dict[Unit, int]:
    """Count what a step's losses are means over, as `Unit` has it."""
    n_scored = sum(group.scored[0] for group in groups)
    n_prompt = sum(len(group.prompt) - 1 for group in groups)
    n_rows = sum(group.n_row_tokens for group in groups)
    return {
        "example": len(groups),
        "token": n_scored,
        "sequence_token": n_scored + n_prompt,
        "row_token": n_rows,
    }


def normalised(out: LossOutput, units: dict[Unit, int]) -> Tensor:
    """Return a micro-batch's share of the step's loss: each term's sum over the units of the whole step and all ranks."""
    shares = [term.weight * term.losses.sum() / units[term.unit] for term in out.terms]
    return torch.stack(shares).sum()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed all generators by (seed, step, rank): dropout never depends on what ran before, so a resumed run repeats it."""
    value = seed_of(seed, step, rank)
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)


def seed_of(seed: int, step: int, purpose: int | str) -> int:
    """Return a seed of 64 bits for one purpose of one step: a rank's dropout, or the rounding, which all ranks share."""
    digest = hashlib.blake2b(f"{seed}/step/{step}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _batch(run: Run, members: Sequence[int], examples: Sequence[int]) -> Batch:
    """Return a bin's groups; an empty bin becomes the step's shortest example with weight 0, so that ranks stay in step."""
    if members:
        return Batch(tuple(run.groups[member] for member in members))
    shortest = min(examples, key=lambda example: run.lengths[example])
    return Batch((run.groups[shortest],), weight=0.0)


def _loss(run: Run, policy: LogProbs, batch: Batch, prepared: Sequence[Any]) -> LossOutput:
    config: Any = run.recipe.method
    reference = reference_of(run.reference, batch.groups, run.method.wants(config), run.runtime.device)
    out = run.method.loss(annotated(policy, batch.groups), reference, config, *prepared)
    if run.method.data != "pairs":
        return out
    return replace(out, metrics=with_ties(out.metrics, policy, reference, TIE_NATS[run.runtime.precision]))


def _balanced(run: Run, policy: LogProbs, batch: Batch, out: LossOutput) -> LossOutput:
    """Add the load-balancing loss of a mixture of experts, where the model has one.

    It is taken over each micro-batch and weighted by tokens: the one part of the loss that depends on how a step is cut, because the shares of
    routed tokens are known for the whole step only after all of its forwards.
    """
    if policy.router is None or run.scorer.router is None:
        return out
    losses = (policy.router * sum(group.n_row_tokens for group in batch.groups))[None]
    return replace(out, terms=(*out.terms, Term(losses, "row_token", run.scorer.router.coefficient)))


@dataclass(frozen=True)
class Step:
    """A step as `Method.prepare` sees it."""

    run: Run
    examples: Sequence[int]
    bins: Sequence[Sequence[int]]
    """This rank's micro-batches."""

    def mean_mismatched_log_ratio(self) -> Tensor:
        """Return the mean over the step's examples, on all ranks, of the mismatched completions' log-ratio: nats, ()."""
        run = self.run
        assert run.reference is not None, "a log-ratio needs a reference"
        total = torch.zeros((), dtype=torch.float64, device=run.runtime.device)
        run.model.eval()  # the drift is the model's, not that of a dropped-out copy
        for members in self.bins:
            batch = _batch(run, members, self.examples)
            groups = [run.mismatched[member] for member in members] or list(batch.groups)
            with torch.no_grad(), run.runtime.autocast():
                policy = score(run.model, run.scorer.layout(groups))
            reference = run.reference.lookup(groups, run.runtime.device)
            total += (policy.total - reference.total).double().sum() * batch.weight
        return (run.runtime.sum_over_ranks(total) / len(self.examples)).float()


class Pull:
    """How hard a loss pulls at log-probs: its gradient by them, caught on the way back, so that it costs no pass of its own."""

    def __init__(self, total: Tensor) -> None:
        """Watch the (N,) log-probs of a micro-batch; call before its backward."""
        self._gradient = torch.full_like(total.detach(), torch.nan)
        total.register_hook(self._keep)

    def _keep(self, gradient: Tensor) -> None:
        self._gradient = gradient.detach()

    def per_group(self, groups: Sequence[TokenGroup]) -> Tensor:
        """Return the mean size over each group's completions, (B,): for DPO beta sigma(-margin) over the step's pairs."""
        sizes, pulled = [len(group.completions) for group in groups], self._gradient.abs()
        if len(set(sizes)) == 1:
            return pulled.reshape(len(sizes), -1).mean(1)
        return torch.stack([of_group.mean() for of_group in pulled.split(sizes)])


def _note(
    run: Run, batch: Batch, members: Sequence[int], out: LossOutput, pulls: Tensor, router: Tensor | None
) -> None:
    """Count a micro-batch's metrics and how much the loss makes of its examples, (B,) per nat; a filler counts nothing."""
    run.meter.add({"train/loss_weight": pulls}, batch.weight)
    run.meter.add({f"train/{name}": values for name, values in out.metrics.items()}, batch.weight)
    run.meter.add_ranked({f"train/{name}": pair for name, pair in out.ranked.items()}, batch.weight)
    if router is not None and run.scorer.router is not None:
        n_tokens = sum(group.n_row_tokens for group in batch.groups) * batch.weight
        run.meter.add_sum("train/aux_loss", router * n_tokens, n_tokens)
    if run.visits is not None and members:
        run.visits.add(run.step, members, out.metrics["rewards/margins"], pulls)


def _update(run: Run) -> Tensor:
    """Clip and step; return whether the gradient was not finite, (): then no weight changes (decided on the device)."""
    optim = run.recipe.optim
    norm = run.runtime.clip(run.model, optim.clip_norm)
    is_bad = ~torch.isfinite(norm)
    lr = learning_rate(run.step, run.total_steps, optim)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
    run.optimizer.rounding_seed = seed_of(run.recipe.train.seed, run.step, "rounding")  # type: ignore[attr-defined]
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.meter.add_sum("train/grad_norm", norm.where(~is_bad, 0), (~is_bad).float())
    run.meter.add_sum("optim/clipped_frac", (norm > optim.clip_norm).float(), 1)
    run.meter.add_sum("optim/nonfinite_frac", is_bad.float(), 1)
    run.meter.add_sum("train/learning_rate", torch.full_like(norm, lr), 1)
    return is_bad


def _record(run: Run, bins: Sequence[Sequence[int]], losses: Sequence[Tensor], is_bad: Tensor) -> None:
    """Count the step's loss, unless the step was left out, and keep what names its rows."""
    share = (~is_bad).float() / (len(losses) * run.runtime.world)
    for loss in losses:
        run.meter.add_sum("train/loss", loss.where(~is_bad, 0), share)
    run.traces.append(Trace(run.step, bins, losses, is_bad))
