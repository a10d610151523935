"""Optimizers that keep less: an update runs in fp32 on a slice of a weight at a time, and what is kept is rounded to bf16 or to 8 bits.

A weight in bf16 has 8 significant bits: at a learning rate of 5e-7 nearly every update is below half a unit in its last place, and rounding
to nearest loses it. Stochastic rounding rounds up with the probability of what is cut off, so that the expectation is exact (Gupta et al.,
arXiv:1502.02551). Moments in bf16 are rounded the same way: a step changes the second one by a thousandth, which bf16 cannot show.
Moments in 8 bits are bitsandbytes' block-wise dynamic ones (Dettmers et al., arXiv:2110.02861).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

SLICE = 2**24
"""Elements updated at once: 64 MiB for each fp32 tensor that an update needs."""
QUANTIZED_BLOCK = 256
"""Elements that share a scale in 8-bit moments. A slice holds whole blocks."""
LEAST_QUANTIZED = 4096
"""Smaller weights, such as those of norms, keep whole moments, as in bitsandbytes."""

Kind = Literal["adamw", "rmsprop", "adamw_8bit", "rmsprop_8bit"]
MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}
_SCALE = "_scale"
"""Ending of the name of an 8-bit moment's scales, fp32, one per block."""


class SlicedOptimizer(torch.optim.Optimizer):
    """AdamW or RMSprop over weights in fp32 or bf16; moments have the weight's type, or 8 bits.

    Two attributes are set before each step: `found_inf`, (): not 0 where the step must change nothing, read on the device; `rounding_seed`
    of the step's random bits. The same seed, weights and gradients give the same result on the same kind of device, on every rank.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], kind: Kind) -> None:
        """Update the weights of `groups`: each has params, lr, eps and weight_decay, and betas (AdamW) or alpha (RMSprop)."""
        super().__init__(list(groups), {})
        self.rule, _, bits = kind.partition("_")
        self.is_quantized = bits == "8bit"
        self.found_inf: Tensor | None = None
        self.rounding_seed = 0
        self._codes: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient, without a host sync."""
        assert closure is None, "the gradients are there already"
        generator: torch.Generator | None = None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if generator is None:
                    generator = torch.Generator(weight.device).manual_seed(self.rounding_seed)
                self._update(weight, group, generator)

    def _update(self, weight: Tensor, group: dict[str, Any], generator: torch.Generator) -> None:
        state = self.state[weight]
        if not state:
            state.update(self._new_state(weight))
        gradient = weight.grad
        assert gradient is not None
        is_bad = torch.zeros((), device=weight.device) if self.found_inf is None else self.found_inf
        kept = {name: tensor.view(-1) for name, tensor in state.items() if name != "step"}
        for part in _slices(weight.numel()):
            old = {
                name: tensor[_scaled(part) if name.endswith(_SCALE) else part]
                for name, tensor in kept.items()
            }
            values = weight.view(-1)[part]
            new = values.to(torch.float32, copy=True)
            moments = [self._expanded(old, name) for name in MOMENTS[self.rule]]
            self._rule(new, gradient.view(-1)[part].float(), moments, state["step"], group)
            changed = {"weight": new}
            for name, moment in zip(MOMENTS[self.rule], moments, strict=True):
                changed |= self._compressed(old, name, moment)
            self._keep(old | {"weight": values}, changed, is_bad, generator)
        state["step"] += 1 - is_bad

    def _new_state(self, weight: Tensor) -> dict[str, Tensor]:
        state = {"step": torch.zeros((), device=weight.device)}
        for name in MOMENTS[self.rule]:
            if self.is_quantized and weight.numel() >= LEAST_QUANTIZED:
                state[name] = torch.zeros_like(weight, dtype=torch.uint8)
                n_blocks = -(-weight.numel() // QUANTIZED_BLOCK)
                state[name + _SCALE] = torch.zeros(n_blocks, device=weight.device)
            else:
                state[name] = torch.zeros_like(weight)
        return state

    def _rule(
        self, weight: Tensor, gradient: Tensor, moments: Sequence[Tensor], step: Tensor, group: dict[str, Any]
    ) -> None:
        """Update an fp32 slice and its moments in place; `step` counts the updates before this one."""
        common = {
            "lr": group["lr"],
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "maximize": False,
        }
        each = [[moment] for moment in moments]
        if self.rule == "rmsprop":
            rmsprop(
                [weight], [gradient], each[0], [], [], [step.clone()], foreach=True, alpha=group["alpha"],
                momentum=0.0, centered=False, **common,
            )  # fmt: skip
        else:
            beta1, beta2 = group["betas"]
            adamw(
                [weight], [gradient], each[0], each[1], [], [step.clone()], fused=True, amsgrad=False,
                beta1=beta1, beta2=beta2, **common,
            )  # fmt: skip

    def _expanded(self, old: dict[str, Tensor], name: str) -> Tensor:
        """Return a slice's moment in fp32, apart from what is kept."""
        if name + _SCALE not in old:
            return old[name].to(torch.float32, copy=True)
        from bitsandbytes.functional import dequantize_blockwise

        scale, code = old[name + _SCALE], self._code(name, old[name].device)
        return dequantize_blockwise(old[name], absmax=scale, code=code, blocksize=QUANTIZED_BLOCK)

    def _compressed(self, old: dict[str, Tensor], name: str, moment: Tensor) -> dict[str, Tensor]:
        """Return what is kept of an fp32 moment, before any rounding to bf16."""
        if name + _SCALE not in old:
            return {name: moment}
        from bitsandbytes.functional import quantize_blockwise

        codes, state = quantize_blockwise(
            moment, code=self._code(name, moment.device), blocksize=QUANTIZED_BLOCK
        )
        return {name: codes, name + _SCALE: state.absmax}

    def _code(self, name: str, device: torch.device) -> Tensor:
        """Return the 256 values of a moment's codes: the first one has a sign, a mean of squares has none."""
        if name not in self._codes:
            from bitsandbytes.functional import create_dynamic_map

            self._codes[name] = create_dynamic_map(signed=name == "exp_avg").to(device)
        return self._codes[name]

    @staticmethod
    def _keep(
        old: dict[str, Tensor], new: dict[str, Tensor], is_bad: Tensor, generator: torch.Generator
    ) -> None:
        """Replace old values by new ones, rounded where those are in bf16, unless the step is bad."""
        rounded = [name for name, tensor in old.items() if tensor.dtype == torch.bfloat16]
        if rounded:
            draws = torch.empty_like(new["weight"], dtype=torch.int64).random_(generator=generator)
            noise = draws.view(torch.int16).view(
                -1, 4
            )  # 63 random bits: the last column's are not all random
            for number, name in enumerate(rounded):
                new[name] = round_stochastically(new[name], noise[:, number])
        for name, tensor in old.items():
            torch.where(is_bad != 0, tensor, new[name], out=tensor)


def round_stochastically(values: Tensor, noise: Tensor) -> Tensor:
    """Round fp32 to bf16, up or down with the probability that keeps the expectation; what bf16 can represent stays as it is.

    Args:
        values: (n,) fp32.
        noise: (n,) int16, uniform over its whole range.
    """
    bits = values.view(torch.int32) + noise
    bits += 2**15
    return bits.view(torch.bfloat16)[1::2]  # cut off: the upper halves, little-endian


def _slices(n: int) -> Iterator[slice]:
    for start in range(0, n, SLICE):
        yield slice(start, min(start + SLICE, n))


def _scaled(part: slice) -> slice:
    """Return the blocks of a slice."""
    return slice(part.start // QUANTIZED_BLOCK, -(-part.stop // QUANTIZED_BLOCK))
