"""The optimizer's part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

Decay = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "rmsprop", "adamw_8bit", "rmsprop_8bit"] = "adamw"
    """Update rule: `rmsprop`, as in the DPO paper, keeps one moment in place of two; `_8bit` keeps moments in 8 bits, a quarter of fp32's
    memory, and needs bitsandbytes (`pip install 'dpo-cli[quantize]'`)."""
    lr: Annotated[float, Gt(0), Le(1)] = 5e-7
    """Peak learning rate, above 0 to 1; 5e-7 suits 7B models, 1e-5 small ones. Larger learns faster and drifts further from the reference."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate after warm-up: to zero in a line or a half cosine, or constant."""
    warmup: Annotated[float, Ge(0)] = 0.1
    """Rise from zero to the peak: below 1 a share of all steps, from 1 on a number of steps. Larger starts more gently."""
    clip_norm: Annotated[float, Gt(0)] = 1.0
    """Largest gradient norm, above 0; larger lets rare big gradients through."""
    weight_decay: Annotated[float, Ge(0), Le(1)] = 0.0
    """Weight decay, 0 to 1, decoupled in AdamW; larger pulls the weights towards zero, not towards the reference."""
    betas: Annotated[list[Decay], MinLen(2), MaxLen(2)] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's decay of the two moments, each 0 to below 1; larger averages over more steps."""
    alpha: Decay = 0.99
    """RMSprop's decay of the mean of squares, 0 to below 1; larger averages over more steps."""
    eps: Annotated[float, Gt(0), Le(1)] = 1e-8
    """Floor of the update's denominator, above 0 to 1; larger damps the steps of rarely used weights."""
