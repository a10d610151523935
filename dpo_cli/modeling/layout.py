"""Groups -> one row of token ids without padding, or plain right-padded rows.

Legend: R rows, T tokens of a row, M scored tokens, N completions, B groups.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpo_cli.types import TokenGroup, Want


@dataclass(eq=False)
class Segments:
    """Who attends to whom in a packed row, which is a sequence of pieces: prompts and completions.

    A segment is a run of queries and the pieces it sees: a prompt with its first completion, then each later completion behind
    the same prompt. Inside a segment the mask is causal, aligned to the lower right: the last query sees every key.
    """

    pieces: list[int]
    """Lengths of the prompts and completions, in row order; they add up to the row."""
    q_lengths: list[int]
    """Queries of each segment, in row order; they add up to the row."""
    key_pieces: list[tuple[int, int]]
    """Numbers of the two pieces that each segment sees: its prompt and its completion."""
    key_index: Tensor
    """Row positions of all segments' keys, one segment after the other, (sum of key lengths,) int64."""
    cu_q: Tensor
    """Where each segment's queries start and the last ends, (segments + 1,) int32."""
    cu_k: Tensor
    """The same for the gathered keys."""
    max_q: int
    max_k: int
    piece: Tensor
    """Number of the piece that a row position belongs to, (T,) int64."""
    prompt: Tensor
    """Number of the prompt's piece that it continues or belongs to, (T,) int64."""
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
    """Positions in the flattened (R * T) whose next token is scored, (M,) int64, completion after completion; behind them the
    prompts', where they are wanted."""
    targets: Tensor
    """Those next tokens, like `source`."""
    tokens: Tensor
    """Scored tokens of each completion, (N,) int64."""
    last: Tensor
    """Flattened positions of each completion's last token, (N,) int64."""
    want: Set[Want] = frozenset()
    """What is wanted beside sums and counts."""
    public: Tensor | None = None
    """1 for a scored token that has its like in the group's shortest completion, else 0, (M,) fp32, where it is wanted."""
    prompt_tokens: Tensor | None = None
    """Tokens of each prompt behind its first, (B,) int64, where they are wanted."""
    n_prompt_tokens: int = 0
    """All of them: a number, for slicing by a tensor would wait for the device."""

    @property
    def n_scored(self) -> int:
        """Scored tokens of all completions; the prompts' come behind them."""
        return len(self.source) - self.n_prompt_tokens

    @property
    def n_computed(self) -> int:
        """Tokens that the backbone computes, padding included."""
        return self.input_ids.numel()


def pack(
    groups: Sequence[TokenGroup], device: torch.device | str = "cpu", want: Set[Want] = frozenset()
) -> Row:
    """Lay groups out as one row `[prompt_1 completion_1 completion_2 ... prompt_2 ...]`, every prompt once."""
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    prompts: list[int] = []
    starts: list[int] = []
    scored: list[tuple[np.ndarray, np.ndarray]] = []
    last: list[int] = []
    start = 0
    for group in groups:
        prompt, n_prompt = len(ids), len(group.prompt)
        last_of_prompt = start + n_prompt - 1
        starts.append(start)
        ids += [group.prompt, *group.completions]
        prompts += [prompt] * (1 + len(group.completions))
        positions += [np.arange(n_prompt), *(n_prompt + np.arange(len(own)) for own in group.completions)]
        start += n_prompt
        for own, mask in zip(group.completions, group.masks, strict=True):
            scored.append(_scored(own, mask, start, last_of_prompt))
            start += len(own)
            last.append(start - 1)
    position_ids = _tensor(np.concatenate(positions), device)
    return Row(
        input_ids=_tensor(np.concatenate(ids), device)[None],
        position_ids=position_ids[None],
        attention_mask=None,
        segments=_segments([len(piece) for piece in ids], prompts, position_ids, device),
        **_read_out(groups, scored, starts, last, device, want),
    )


def pad(
    groups: Sequence[TokenGroup], device: torch.device | str = "cpu", want: Set[Want] = frozenset()
) -> Row:
    """Lay every completion out behind its own copy of the prompt, one right-padded row each: the oracle's layout.

    The padding's id does not matter: lengths, not ids, say what is padding.
    """
    pairs = [(g.prompt, ids, mask) for g in groups for ids, mask in zip(g.completions, g.masks, strict=True)]
    width = max(len(prompt) + len(ids) for prompt, ids, _ in pairs)
    input_ids = np.zeros((len(pairs), width), np.int64)
    attention_mask = np.zeros((len(pairs), width), np.int64)
    scored, last = [], []
    for number, (prompt, ids, mask) in enumerate(pairs):
        full = np.concatenate([prompt, ids])
        input_ids[number, : len(full)] = full
        attention_mask[number, : len(full)] = 1
        start = number * width
        scored.append(_scored(ids, mask, start + len(prompt), start + len(prompt) - 1))
        last.append(start + len(full) - 1)
    firsts = np.cumsum([0, *(len(group.completions) for group in groups)])[:-1]
    return Row(
        input_ids=_tensor(input_ids, device),
        position_ids=torch.arange(width, device=device).expand(len(pairs), width),
        attention_mask=_tensor(attention_mask, device),
        segments=None,
        **_read_out(groups, scored, [int(first) * width for first in firsts], last, device, want),
    )


def _read_out(
    groups: Sequence[TokenGroup],
    scored: list[tuple[np.ndarray, np.ndarray]],
    prompt_starts: Sequence[int],
    last: list[int],
    device: torch.device | str,
    want: Set[Want],
) -> dict[str, Any]:
    """Return the fields of a row that say what is read where."""
    sources, targets = [source for source, _ in scored], [target for _, target in scored]
    fields: dict[str, Any] = {
        "want": want,
        "tokens": _tensor(np.array([len(target) for target in targets]), device),
        "last": _tensor(np.array(last), device),
    }
    if "public" in want:
        public = [np.arange(n) < min(group.scored) for group in groups for n in group.scored]
        fields["public"] = _tensor(np.concatenate(public), device, torch.float32)
    if "prompt" in want:
        sources += [
            start + np.arange(len(g.prompt) - 1) for start, g in zip(prompt_starts, groups, strict=True)
        ]
        targets += [group.prompt[1:] for group in groups]
        fields["prompt_tokens"] = _tensor(np.array([len(group.prompt) - 1 for group in groups]), device)
        fields["n_prompt_tokens"] = sum(len(group.prompt) - 1 for group in groups)
    fields["source"] = _tensor(np.concatenate(sources), device)
    fields["targets"] = _tensor(np.concatenate(targets), device)
    return fields


def _scored(ids: np.ndarray, mask: np.ndarray, start: int, before: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that predict the scored tokens, and those tokens; `before` predicts the first one."""
    (where,) = np.nonzero(mask)
    return np.where(where == 0, before, start + where - 1), ids[where]


def _segments(
    pieces: list[int], prompts: list[int], position: Tensor, device: torch.device | str
) -> Segments:
    """Derive the segments from the pieces' lengths and each piece's prompt (its own number for a prompt)."""
    key_pieces = [(prompt, piece) for piece, prompt in enumerate(prompts) if piece != prompt]
    # A prompt's queries run with its first completion, which is the piece right behind it.
    q_lengths = [pieces[own] + (pieces[prompt] if own == prompt + 1 else 0) for prompt, own in key_pieces]
    k_lengths = [pieces[prompt] + pieces[own] for prompt, own in key_pieces]
    row = np.split(np.arange(sum(pieces)), np.cumsum(pieces)[:-1])
    return Segments(
        pieces=pieces,
        q_lengths=q_lengths,
        key_pieces=key_pieces,
        key_index=_tensor(np.concatenate([row[piece] for pair in key_pieces for piece in pair]), device),
        cu_q=_tensor(np.cumsum([0, *q_lengths]), device, torch.int32),
        cu_k=_tensor(np.cumsum([0, *k_lengths]), device, torch.int32),
        max_q=max(q_lengths),
        max_k=max(k_lengths),
        piece=_tensor(np.repeat(np.arange(len(pieces)), pieces), device),
        prompt=_tensor(np.repeat(prompts, pieces), device),
        position=position,
    )


def _tensor(values: np.ndarray, device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return the values on a device without waiting for it, which `torch.tensor(values, device=device)` would do."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=dtype, non_blocking=True)
