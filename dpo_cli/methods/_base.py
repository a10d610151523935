"""What a method declares, and the rewards that every pairwise method reports.

No torch import at the top: recipes are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dpo_cli.errors import Problem
from dpo_cli.types import DataKind, DataNeeds, LogProbs, LossOutput, TokenGroup, Unit, Want

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Values = TypeVar("Values", "Tensor", "np.ndarray")

TIE_NATS = {"fp32": 1e-3, "bf16": 5e-2}
"""Log-ratios of two answers that differ by no more do so by arithmetic: other batches give other roundings."""


@dataclass(frozen=True)
class Method:
    """A declaration: what the method trains on and a pure loss over log-probs."""

    config: type
    """Dataclass of the method's knobs, each with a docstring; its `name` field is the method's name."""
    data: DataKind
    needs_reference: bool
    loss: Callable[..., LossOutput]
    """(policy, reference, config) -> LossOutput; completions in group order, N = 2B for pairs: chosen, rejected, chosen, ..., and as
    `policy.sizes` says for rankings. With `prepare`, what that gave is the fourth argument."""
    paper: str
    """Title and arXiv number."""
    form: Callable[[Any], str] = lambda config: str(config.name)
    """Config -> the method in one line, with what projects do differently under its name; said at the start of a run."""
    at_reference: Callable[[Any], float | None] | None = None
    """Config -> the loss where policy = reference, in closed form, or None where it has none: the self-test before step 1.
    None without a reference."""
    problems: Callable[[Any], list[Problem]] = lambda config: []
    """Config -> contradictions between its knobs, each placed at the dotted key to change (`method.loss`)."""
    mismatched: Callable[[Any], bool] = lambda config: False
    """Config -> whether `prepare` asks for mismatched completions."""
    last_turn: Callable[[Any], bool] = lambda config: False
    """Config -> whether only the last answer of a completion is scored."""
    margins: Callable[[Any], bool] = lambda config: False
    """Config -> whether the loss reads each pair's margin: rows without one are refused."""
    prepare: Callable[[StepContext, Any], Any] | None = None
    """(step, config) -> what the loss needs of the whole step, over all micro-batches and ranks, before the first backward;
    without gradient."""
    reward: Callable[[LogProbs, LogProbs | None, Any], Tensor] | None = None
    """(policy, reference, config) -> a reward for each completion, (N,): ranks held-out pairs where training rows are none.
    None for methods of pairs, whose loss reports `rewards/margins`."""
    advice: Callable[[Any, Sequence[TokenGroup]], list[str]] = lambda config, groups: []
    """(config, training groups) -> what the user should know about these settings on these data, a line each."""
    wants: Callable[[Any], frozenset[Want]] = lambda config: frozenset()
    """Config -> what the loss reads of the scorer beside sums and counts."""
    trains_head: bool = False
    """Whether it trains a scalar head on each row's last token in place of the language model's: a reward model. `policy.total` is its score."""

    def needs(self, config: Any) -> DataNeeds:
        """Return what the method trains on with these knobs."""
        asked = (self.mismatched(config), self.last_turn(config), self.trains_head, self.margins(config))
        return DataNeeds(self.data, *asked)


class StepContext(Protocol):
    """What `prepare` may ask of a step."""

    def mean_mismatched_log_ratio(self) -> Tensor:
        """Return the mean over the step's examples, on all ranks, of log pi - log pi_ref of their prompt with another
        prompt's completion: nats, (), without gradient.
        """


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split (2B,) values in group order into chosen (B,) and rejected (B,)."""
    return values[0::2], values[1::2]


def wins(differences: Values, is_tie: Values | None = None) -> Values:
    """Return what each pair counts in an accuracy: 1 where the chosen side is ahead, 0 where it is behind, 1/2 for a tie.

    The one definition behind every accuracy, interval and baseline here, in training, evaluation and reports. A tie is half right, as in an
    AUC (Mann and Whitney 1947) and in win rates: a model that cannot tell two answers apart is a coin. TRL and RewardBench compare by `>`, so
    there it is wrong, and a policy that is still its reference has 0: worse than a coin, and no match for "longer wins", whose ties count
    half. Without ties all of these agree.

    Args:
        differences: chosen minus rejected, (n,), in any unit; nan counts 0.
        is_tie: pairs that are ties beside those without a difference, (n,) bool (see `ties`).
    """
    tied = differences == 0 if is_tie is None else is_tie | (differences == 0)
    return ((differences > 0) & ~tied) + 0.5 * tied


def ties(margins: Tensor, policy: LogProbs, reference: LogProbs | None, tie_nats: float) -> Tensor:
    """Return which pairs are ties, (B,) bool: equal rewards or, with a reference, log-ratios that differ by arithmetic alone.

    Args:
        margins: reward of chosen minus rejected, (B,).
        policy: of the pairs' completions, (2B,).
        reference: the same completions; None for a method without a reference, whose rewards are compared as they are.
        tie_nats: the most that arithmetic makes of no difference, see `TIE_NATS`.
    """
    if reference is None:
        return margins == 0
    chosen, rejected = pairs((policy.total - reference.total).detach())
    return (margins == 0) | ((chosen - rejected).abs() <= tie_nats)


def with_ties(
    metrics: dict[str, Tensor], policy: LogProbs, reference: LogProbs | None, tie_nats: float
) -> dict[str, Tensor]:
    """Return a method's metrics of pairs with `rewards/accuracies` by `wins`, where it knows of ties by arithmetic; arguments as of `ties`."""
    margins = metrics["rewards/margins"]
    return {**metrics, "rewards/accuracies": wins(margins, ties(margins, policy, reference, tie_nats))}


def mean_loss(out: LossOutput, scored: LogProbs, completions: int = 2) -> Tensor:
    """Return the loss of these groups alone, (): each term's mean over its own unit (groups, or tokens of their first completions).

    Args:
        out: what the method made of them.
        scored: their completions' log-probs, group by group.
        completions: of a group: two for pairs.
    """
    import torch

    tokens = scored.tokens[::completions]
    units: dict[Unit, int | Tensor] = {"example": len(tokens), "token": tokens.sum()}
    if scored.prompt_tokens is not None:
        units["sequence_token"] = tokens.sum() + scored.prompt_tokens.sum()
    return torch.stack([term.weight * term.losses.sum() / units[term.unit] for term in out.terms]).sum()


def reward_metrics(chosen: Tensor, rejected: Tensor, policy: LogProbs) -> dict[str, Tensor]:
    """Return TRL's reward and log-prob metrics per pair, each (B,); `logps/*` are sums over completion tokens."""
    chosen_logps, rejected_logps = pairs(policy.total.detach())
    chosen_tokens, rejected_tokens = pairs(policy.tokens)
    return {
        **preference_metrics(chosen, rejected, policy),
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
        "logps/chosen_per_token": chosen_logps / chosen_tokens,
        "logps/rejected_per_token": rejected_logps / rejected_tokens,
    }


def preference_metrics(chosen: Tensor, rejected: Tensor, policy: LogProbs) -> dict[str, Tensor]:
    """Return rewards and lengths per pair, each (B,); in `rewards/accuracies` a tie counts half, as `wins` has it."""
    chosen, rejected = chosen.detach(), rejected.detach()
    chosen_tokens, rejected_tokens = pairs(policy.tokens)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": wins(chosen - rejected),
        "lengths/chosen": chosen_tokens.float(),
        "lengths/rejected": rejected_tokens.float(),
    }


def annotated(scored: LogProbs, groups: Sequence[TokenGroup]) -> LogProbs:
    """Return log-probs with what the data say of their groups: sizes where they are no pairs, labels, or margins, where there are some."""
    import torch

    device = scored.total.device
    if any(len(group.completions) > 2 for group in groups):
        return replace(scored, sizes=tuple(len(group.completions) for group in groups))
    if any(group.margin is not None for group in groups):
        margins = torch.tensor([group.margin or 0.0 for group in groups], dtype=scored.total.dtype)
        return replace(scored, margins=margins.to(device, non_blocking=True))
    if any(group.label is None for group in groups):
        return scored
    labels = torch.tensor([bool(group.label) for group in groups])
    return replace(scored, labels=labels.to(device, non_blocking=True))
