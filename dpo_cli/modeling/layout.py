"""Groups -> one row of token ids without padding, or plain right-padded rows.

Legend: R rows, T tokens of a row, M scored tokens, N completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dpo_cli.types import TokenGroup

Span = tuple[int, int]


@dataclass(eq=False)
class Segments:
    """Who attends to whom in a packed row: query spans in row order, each with the key spans it sees.

    Inside a segment the mask is causal, aligned to the lower right: the last query sees every key.
    """

    spans: list[tuple[Span, tuple[Span, ...]]]
    key_index: Tensor
    """Row positions of all segments' keys, one segment after the other, (sum of key lengths,) int64."""
    cu_q: Tensor
    """Where each segment's queries start and the last ends, (segments + 1,) int32."""
    cu_k: Tensor
    """The same for the gathered keys."""
    max_q: int
    max_k: int
    completion: Tensor
    """Number of the completion that a row position belongs to, (T,) int64; a prompt's is -1 minus its group's number."""
    prompt: Tensor
    """Number (as in `completion`) of the prompt that a row position continues, (T,) int64."""
    position: Tensor
    """Position of each row token in its own sequence, (T,) int64."""
    masks: dict[object, object] = field(default_factory=dict)
    """What a kernel derives from the layout once and uses in every layer."""


@dataclass(eq=False)
class Row:
    """What the model is called with, and where the scored tokens stand in what it gives."""

    input_ids: Tensor
    """(R, T) int64; R is 1 for a packed row."""
    position_ids: Tensor
    """(R, T) int64; every completion continues its own prompt."""
    attention_mask: Tensor | None
    """(R, T) int64 for padded rows, None for a packed one."""
    segments: Segments | None
    source: Tensor
    """Positions in the flattened (R * T) whose next token is scored, (M,) int64, completion after completion."""
    targets: Tensor
    """Those next tokens, (M,) int64."""
    tokens: Tensor
    """Scored tokens of each completion, (N,) int64."""

    @property
    def n_computed(self) -> int:
        """Tokens that the backbone computes, padding included."""
        return self.input_ids.numel()


def pack(groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> Row:
    """Lay groups out as one row `[prompt_1 completion_1 completion_2 ... prompt_2 ...]`, every prompt once."""
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    owner: list[np.ndarray] = []
    prompt_of: list[np.ndarray] = []
    spans: list[tuple[Span, tuple[Span, ...]]] = []
    scored: list[tuple[np.ndarray, np.ndarray]] = []
    offset = number = 0
    for index, group in enumerate(groups):
        n_prompt = len(group.prompt)
        prompt = (offset, offset + n_prompt)
        ids.append(group.prompt)
        positions.append(np.arange(n_prompt))
        owner.append(np.full(n_prompt, -1 - index))
        offset += n_prompt
        for nth, (completion, mask) in enumerate(zip(group.completions, group.masks, strict=True)):
            own = (offset, offset + len(completion))
            first = (prompt[0], own[1])
            spans.append((first, (first,)) if nth == 0 else (own, (prompt, own)))
            scored.append(_scored(completion, mask, own[0], prompt[1] - 1))
            ids.append(completion)
            positions.append(n_prompt + np.arange(len(completion)))
            owner.append(np.full(len(completion), number))
            offset, number = own[1], number + 1
        prompt_of.append(np.full(offset - prompt[0], -1 - index))
    return Row(
        input_ids=_tensor(np.concatenate(ids), device)[None],
        position_ids=_tensor(np.concatenate(positions), device)[None],
        attention_mask=None,
        segments=_segments(spans, owner, prompt_of, positions, device),
        source=_tensor(np.concatenate([source for source, _ in scored]), device),
        targets=_tensor(np.concatenate([targets for _, targets in scored]), device),
        tokens=torch.tensor([len(targets) for _, targets in scored], device=device),
    )


def pad(groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> Row:
    """Lay every completion out behind its own copy of the prompt, one right-padded row each: the oracle's layout.

    The padding's id does not matter: lengths, not ids, say what is padding.
    """
    pairs = [(g.prompt, ids, mask) for g in groups for ids, mask in zip(g.completions, g.masks, strict=True)]
    width = max(len(prompt) + len(ids) for prompt, ids, _ in pairs)
    input_ids = np.zeros((len(pairs), width), np.int64)
    attention_mask = np.zeros((len(pairs), width), np.int64)
    scored = []
    for number, (prompt, ids, mask) in enumerate(pairs):
        full = np.concatenate([prompt, ids])
        input_ids[number, : len(full)] = full
        attention_mask[number, : len(full)] = 1
        start = number * width
        scored.append(_scored(ids, mask, start + len(prompt), start + len(prompt) - 1))
    return Row(
        input_ids=_tensor(input_ids, device),
        position_ids=torch.arange(width, device=device).expand(len(pairs), width),
        attention_mask=_tensor(attention_mask, device),
        segments=None,
        source=_tensor(np.concatenate([source for source, _ in scored]), device),
        targets=_tensor(np.concatenate([targets for _, targets in scored]), device),
        tokens=torch.tensor([len(targets) for _, targets in scored], device=device),
    )


def _scored(ids: np.ndarray, mask: np.ndarray, start: int, before: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the positions that predict the scored tokens, and those tokens; `before` predicts the first one."""
    (where,) = np.nonzero(mask)
    return np.where(where == 0, before, start + where - 1), ids[where]


def _segments(
    spans: list[tuple[Span, tuple[Span, ...]]],
    owner: list[np.ndarray],
    prompt: list[np.ndarray],
    positions: list[np.ndarray],
    device: torch.device | str,
) -> Segments:
    q_lengths = [end - start for (start, end), _ in spans]
    k_lengths = [sum(end - start for start, end in keys) for _, keys in spans]
    key_index = np.concatenate([np.arange(start, end) for _, keys in spans for start, end in keys])
    return Segments(
        spans=spans,
        key_index=_tensor(key_index, device),
        cu_q=_tensor(np.cumsum([0, *q_lengths]), device, torch.int32),
        cu_k=_tensor(np.cumsum([0, *k_lengths]), device, torch.int32),
        max_q=max(q_lengths),
        max_k=max(k_lengths),
        completion=_tensor(np.concatenate(owner), device),
        prompt=_tensor(np.concatenate(prompt), device),
        position=_tensor(np.concatenate(positions), device),
    )


def _tensor(values: np.ndarray, device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=dtype, non_blocking=True)
