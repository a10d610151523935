"""The start-up check that the packed path gives the numbers of plain padded rows, on the run's own data and arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpo_cli.errors import ModelError
from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.head import head_of, token_log_probs
from dpo_cli.modeling.layout import Row
from dpo_cli.modeling.oom import is_out_of_memory
from dpo_cli.modeling.scorer import Path, Scorer
from dpo_cli.types import TokenGroup

FP32_MAX = 1e-4
"""Largest difference in fp32, nats per token."""
BF16_MEAN = 1e-3
"""bf16 rounds both paths, each its own way: the packed one's mean error may exceed the padded one's by this much, nats per token."""
ROUNDING = 2**-6
"""Of the largest logit: what bf16 makes of a log-prob in a model whose own logits are bf16, a few roundings of 2**-9 each."""
N_GROUPS = 3
COMPILED_STEPS = 300
"""Optimizer steps from which compiling is worth its time."""
LONGEST_TOKENS = 4096
"""The padded oracle of a longer group would cost more than the check is worth."""


@dataclass(frozen=True)
class Exactness:
    """What the check found."""

    path: Path
    """The path to take."""
    difference: float
    """Largest |packed - padded| in nats per token, or of a reward model's scores, in fp32 (mean error above the padded
    path's in bf16); nan where it could not run."""
    reason: str
    """One line for the user."""


def choose_path(
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    wanted: str,
    autocast: Callable[[], AbstractContextManager[object]],
    is_fp32: bool,
) -> Exactness:
    """Choose packed or padded rows by comparing both on a few groups, the longest among them; leaves the scorer on that path.

    Args:
        scorer: the bare scorer.
        groups: the run's data.
        wanted: `auto` and `packed` check; `padded` takes that path unchecked.
        autocast: opens the run's precision.
        is_fp32: the run computes in fp32: the strict tolerance applies.

    Raises:
        OutOfMemoryError: the longest row does not fit.
        ModelError: the fused head does not give the model's own logits, or `packed` was asked for and is not exact.
    """
    sample = _sample(groups)
    unit = "of a score" if scorer.is_reward else "nats per token"
    # A frozen base in bf16 beside fp32 weights that are trained: only autocast multiplies the one with the other.
    own = nullcontext if _is_fp32(scorer) else autocast
    with torch.no_grad():
        scorer.take("padded")
        with own():
            _check_head(scorer, sample[-1])
        if wanted == "padded":
            return Exactness("padded", float("nan"), "attention: padded rows, as asked")
        exact = _per_token(scorer, "padded", sample, own)
        try:
            difference, limit = _difference(scorer, sample, exact, autocast, is_fp32)
        except (
            Exception
        ) as error:  # an attention argument that is not known, or a kernel that does not run here
            if is_out_of_memory(error):
                raise
            difference, limit = float("nan"), 0.0
            said = (str(error).splitlines() or [""])[0]
            why = f"this model cannot take packed rows ({type(error).__name__}: {said})"
        else:
            why = f"packed rows differ from padded ones by {difference:.1e} {unit}, above {limit:.0e}"
    if difference <= limit:
        scorer.take("packed")
        return Exactness("packed", difference, f"attention: packed rows, exact to {difference:.1e} {unit}")
    if wanted == "packed":
        raise ModelError.of("model.attention", why, "model.attention=auto takes padded rows for such a model")
    scorer.take("padded")
    return Exactness("padded", difference, f"attention: padded rows (slower), because {why}")


def choose_compiled(
    wanted: str,
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    n_steps: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> tuple[bool, str]:
    """Choose whether the blocks are compiled, and say why or why not, or nothing where it is the usual; leaves them that way.

    Args:
        wanted: as `train.compile`.
        scorer: the bare scorer on its path.
        groups: the run's data.
        n_steps: optimizer steps of the run.
        autocast: opens the run's precision.
    """
    set_blocks(scorer.model)
    if wanted == "none" or (wanted == "auto" and n_steps < COMPILED_STEPS):
        return False, ""
    with autocast():
        if scorer.path != "packed" or scorer.attention_kernel() != "varlen":
            return False, ""
    began = time.perf_counter()
    try:
        excess = _compiled_excess(scorer, _sample(groups), autocast)
    except Exception as error:  # a compiler fails in its own ways; without it the run is slower, not wrong
        if is_out_of_memory(error):
            raise
        set_blocks(scorer.model)
        return False, f"blocks not compiled: {type(error).__name__}"
    if not excess <= BF16_MEAN:
        set_blocks(scorer.model)
        return False, f"blocks not compiled, because they differ by {excess:.1e} nats per token"
    return True, f"blocks compiled in {time.perf_counter() - began:.0f} s"


def _compiled_excess(
    scorer: Scorer, sample: Sequence[TokenGroup], autocast: Callable[[], AbstractContextManager[object]]
) -> float:
    """Compile the blocks; return the mean error of their log-probs above that of the same blocks uncompiled, nats per token.

    Compiles backward too, so that what cannot be compiled is met before the first step; leaves no gradient.
    """
    own = nullcontext if _is_fp32(scorer) else autocast
    with torch.no_grad():
        exact = _per_token(scorer, "padded", sample, own)
        plain = _per_token(scorer, "packed", sample, autocast)
        set_blocks(scorer.model, is_compiled=True)
        compiled = _per_token(scorer, "packed", sample, autocast)
    is_training = scorer.training
    scorer.train()
    with autocast():
        total = scorer(scorer.layout(sample))[1]
    total.sum().backward()
    scorer.zero_grad(set_to_none=True)
    scorer.train(is_training)
    return ((compiled - exact).abs().mean() - (plain - exact).abs().mean()).item()


def _sample(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    """Return the longest group that is not too long, and the first ones; the shortest of them last."""
    allowed = [group for group in groups if group.n_tokens <= LONGEST_TOKENS] or [
        min(groups, key=lambda g: g.n_tokens)
    ]
    longest = max(allowed, key=lambda group: group.n_tokens)
    return sorted([longest, *allowed[: N_GROUPS - 1]], key=lambda group: -group.n_tokens)


def _difference(
    scorer: Scorer,
    sample: Sequence[TokenGroup],
    exact: Tensor,
    autocast: Callable[[], AbstractContextManager[object]],
    is_fp32: bool,
) -> tuple[float, float]:
    packed = _per_token(scorer, "packed", sample, autocast)
    if is_fp32:
        return (packed - exact).abs().max().item(), FP32_MAX
    padded = _per_token(scorer, "padded", sample, autocast)
    excess = (packed - exact).abs().mean() - (padded - exact).abs().mean()
    return max(0.0, excess.item()), BF16_MEAN


def _per_token(
    scorer: Scorer,
    path: Path,
    sample: Sequence[TokenGroup],
    autocast: Callable[[], AbstractContextManager[object]],
) -> Tensor:
    """Return the sample's per-token log-probs, packed into one row, or padded one group at a time."""
    scorer.take(path)
    rows: list[Row] = (
        [scorer.layout(sample)] if path == "packed" else [scorer.layout([group]) for group in sample]
    )
    with autocast():
        return torch.cat([scorer(row)[0] for row in rows])


def _check_head(scorer: Scorer, group: TokenGroup) -> None:
    """Compare what the scorer reads with what the model itself gives, in the weights' own type."""
    difference, limit = (_score_difference if scorer.is_reward else _logit_difference)(scorer, group)
    if not difference <= limit:
        what = f"the model's output is not its head applied to its last hidden states (differs by {difference:.1e})"
        raise ModelError.of(
            "model.name", what, "this architecture is not supported; please report it with its name"
        )


def _is_fp32(scorer: Scorer) -> bool:
    return all(weight.dtype == torch.float32 for weight in scorer.model.parameters())


def _limit(given: Tensor) -> float:
    """Return by how much a model's own output may differ from the same in fp32."""
    return FP32_MAX if given.dtype == torch.float32 else ROUNDING * max(1.0, given.abs().max().item())


def _logit_difference(scorer: Scorer, group: TokenGroup) -> tuple[float, float]:
    row = scorer.layout([group])
    out = scorer.model(
        input_ids=row.input_ids, attention_mask=row.attention_mask, use_cache=False, output_hidden_states=True
    )
    logits = out.logits.flatten(0, 1)[row.source]
    own = torch.log_softmax(logits.float(), 1).gather(1, row.targets[:, None])[:, 0]
    hidden = out.hidden_states[-1].flatten(0, 1)[row.source]
    read = token_log_probs(hidden, head_of(scorer.model), row.targets)
    return (own - read).abs().max().item(), _limit(logits)


def _score_difference(scorer: Scorer, group: TokenGroup) -> tuple[float, float]:
    """Compare scores with those that transformers gives for each row alone: it looks for the last token that is not the pad token."""
    rows = [np.concatenate([group.prompt, ids]) for ids in group.completions]
    given = [torch.from_numpy(ids.astype(np.int64))[None].to(scorer.model.device) for ids in rows]
    own = torch.cat([scorer.model(input_ids=ids, use_cache=False).logits[:, 0] for ids in given])
    return (own.float() - scorer(scorer.layout([group]))[0]).abs().max().item(), _limit(own)
