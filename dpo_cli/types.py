"""The values that travel: Example -> TokenGroup -> Batch -> LogProbs -> LossOutput.

Legend: B groups, K completions of a group, N = sum of K over a batch, P prompt tokens, C completion tokens. Log-probs are fp32 nats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Message = Mapping[str, Any]
"""One chat turn: `role`, `content`, and what the template reads beside them (`tool_calls`, `name`)."""

Text = str | Sequence[Message]
"""A piece of conversation: raw text, or chat messages."""

DataKind = Literal["pairs", "rankings", "labelled", "targets"]
"""What a method trains on: groups of two completions, the preferred one first; of two or more, best first; one completion with a label; one
completion to imitate."""

Unit = Literal["example", "token", "sequence_token", "row_token"]
"""What a term of a loss is a mean over: groups, scored tokens of the first completions, those and their prompts' tokens, or all tokens of
all completions, each with its prompt."""

Want = Literal["public", "confidence", "prompt"]
"""What a method asks of the scorer beside sums and counts: the fields of `LogProbs` of the same names."""


@dataclass(frozen=True)
class DataNeeds:
    """What a method trains on, as its knobs make it."""

    kind: DataKind = "pairs"
    mismatched: bool = False
    """Whether each row comes with its prompt and another prompt's completion too, which the reference then scores."""
    last_turn: bool = False
    """Whether only the last answer of a completion is scored; the answers before it are context."""
    whole_rows: bool = False
    """Whether chats end where the template ends them, not at the last answer's end token: where a reward model reads its score."""
    margins: bool = False
    """Whether every row must state by how much its chosen completion is better."""


@dataclass(frozen=True)
class Example:
    """One prompt and its completions, best first, as a data file states them."""

    prompt: Text
    completions: tuple[Text, ...]
    """Same kind as the prompt: text that continues it, or the messages after it."""
    source: str
    """`file:line` (or `name[row]`), for messages to the user."""
    tools: Sequence[Mapping[str, Any]] | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    label: bool | None = None
    """Whether the one completion is wanted; None where completions are ranked, or a target."""
    margin: float | None = None
    """Score of the chosen minus the rejected completion, in the data's own unit; None where the data state none."""
    weight: float = 1.0
    """Passes over this row in an epoch, 0 or more, times those of its source."""
    ratings: tuple[float, ...] | None = None
    """Scores of the completions, in their order, where the data rate each: equal ones make no pair."""


@dataclass(frozen=True, eq=False)
class TokenGroup:
    """One prompt and its K completions as token ids: the unit of work of every method."""

    prompt: np.ndarray
    """The prefix that all completions share, (P,) int32, P >= 1."""
    completions: tuple[np.ndarray, ...]
    """What follows the shared prefix, K arrays (C_k,) int32, C_k >= 1."""
    masks: tuple[np.ndarray, ...]
    """Which of those tokens are scored, K arrays (C_k,) bool, each with at least one true."""
    source: str = ""
    label: bool | None = None
    """Whether the one completion is wanted; None where completions are ranked, or a target."""
    margin: float | None = None
    """Score of the chosen minus the rejected completion, in the data's own unit; None where the data state none."""

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Digest of each completion's token ids (prompt included) and score mask; wherever the shared prefix ends, it is the same."""
        prefix = hashlib.blake2b(self.prompt.astype("<i4", copy=False).tobytes(), digest_size=16)
        keys = []
        for ids, mask in zip(self.completions, self.masks, strict=True):
            digest = prefix.copy()
            signed = np.where(mask, ~ids, ids)  # ids are not negative: the sign says what is scored
            digest.update(signed.astype("<i4", copy=False).tobytes())
            keys.append(digest.hexdigest())
        return tuple(keys)

    @property
    def n_tokens(self) -> int:
        """Tokens that the packed layout computes for this group: the prompt once, every completion once."""
        return len(self.prompt) + sum(len(ids) for ids in self.completions)

    def only(
        self, members: Sequence[int], label: bool | None = None, margin: float | None = None
    ) -> TokenGroup:
        """Return the group with some of its completions; their keys stay the same."""
        chosen = ([side[k] for k in members] for side in (self.completions, self.masks))
        completions, masks = (tuple(side) for side in chosen)
        return TokenGroup(self.prompt, completions, masks, self.source, label, margin)

    @property
    def scored(self) -> tuple[int, ...]:
        """Scored tokens of each completion."""
        return tuple(int(mask.sum()) for mask in self.masks)

    @property
    def n_row_tokens(self) -> int:
        """Tokens of all completions, each behind a prompt of its own."""
        return sum(len(self.prompt) + len(ids) for ids in self.completions)

    def public(self) -> TokenGroup:
        """Return the group with each completion cut behind as many scored tokens as the one that has the fewest: what LD-DPO calls public."""
        shortest = min(self.scored)
        ends = [int(np.flatnonzero(mask)[shortest - 1]) + 1 for mask in self.masks]
        completions = tuple(ids[:end] for ids, end in zip(self.completions, ends, strict=True))
        masks = tuple(mask[:end] for mask, end in zip(self.masks, ends, strict=True))
        return TokenGroup(self.prompt, completions, masks, self.source)

    def prompt_alone(self) -> TokenGroup | None:
        """Return the prompt as the one completion of its first token; None for a prompt of one token."""
        rest = self.prompt[1:]
        if not len(rest):
            return None
        return TokenGroup(self.prompt[:1], (rest,), (np.ones(len(rest), dtype=bool),), self.source)


@dataclass(frozen=True, eq=False)
class Batch:
    """Groups that are scored together; `weight` 0 marks a filler that only keeps ranks in step."""

    groups: tuple[TokenGroup, ...]
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class LogProbs:
    """What the scorer gives for the N completions of a batch, group by group."""

    total: Tensor
    """Summed log-probability of the scored tokens, (N,) fp32, nats; of a reward model its score instead."""
    tokens: Tensor
    """Scored tokens, (N,) int64, at least 1."""
    per_token: Tensor | None = None
    """Log-probability of each scored token, completion after completion, (sum of tokens,), on request."""
    labels: Tensor | None = None
    """Which completions are wanted, (N,) bool, for methods of labelled ones."""
    margins: Tensor | None = None
    """By how much each chosen completion is better, (B,), where the data say so; 0 for a pair without."""
    sizes: tuple[int, ...] | None = None
    """Completions of each group, B numbers, for methods of rankings; None: pairs."""
    public: Tensor | None = None
    """Like `total`, but over as many scored tokens as the group's shortest completion has, (N,)."""
    confidence: Tensor | None = None
    """Mean over scored tokens of log p(token) - log sum_v p(v)^2, (N,), nats, without gradient."""
    prompt: Tensor | None = None
    """Summed log-probability of each group's prompt behind its first token, (B,), nats."""
    prompt_tokens: Tensor | None = None
    """How many tokens those are, (B,) int64."""
    router: Tensor | None = None
    """Load-balancing loss of a mixture of experts over the batch's tokens, (), before its coefficient; None outside training."""

    @property
    def mean(self) -> Tensor:
        """Log-probability per scored token, (N,)."""
        return self.total / self.tokens


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a loss: `weight` times the mean of `losses` over its unit, taken over the whole step and all ranks."""

    losses: Tensor
    """(U,) one value a unit, or any sums whose units add up to the step's count."""
    unit: Unit = "example"
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class LossOutput:
    """What a method makes of log-probs."""

    terms: tuple[Term, ...]
    metrics: dict[str, Tensor]
    """Per-group values to average over the logging window, (B,) each, without gradient."""
    ranked: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Values, (B,), and which of them are wanted, (B,) bool: reported as the AUC over the logging window. Without gradient."""
