"""What training a model of some size holds in memory, by what the method needs. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

STATE_BYTES = 16
"""Of a trained parameter by default: fp32 weight, gradient and AdamW's two moments."""
FROZEN_BYTES = 2
"""Of a parameter that an adapter leaves as it is, in bf16."""
ADAPTER_SHARE = 0.01
"""Of a model's parameters that an adapter of rank 16 on all linear layers has: 0.5% of a 70B model, 1% of an 8B one, 3.6% of a 135M one."""
REFERENCE_BYTES = 4
"""Of a parameter of a live reference; log-probs from the store need no second model."""
CARDS = (8, 16, 24, 40, 80)
"""Memory of usual GPUs and small machines, GiB."""


@dataclass(frozen=True)
class Size:
    """How many parameters a model has."""

    parameters: int
    is_exact: bool
    """False where the model's name says so and nothing else is here."""

    def __str__(self) -> str:
        in_billions = self.parameters > 999e6
        text = f"{self.parameters / 1e9:.3g}B" if in_billions else f"{self.parameters / 1e6:.3g}M"
        return text if self.is_exact else f"~{text}"


@dataclass(frozen=True)
class Need:
    """What training holds in memory on every device, whatever is computed at once: activations come on top."""

    size: Size
    is_reference_live: bool = False
    """Whether the reference is loaded beside the policy; it counts as of the same size."""
    adapter_rank: int | None = None
    """Of an adapter on a frozen base; None where all weights are trained."""
    state_bytes: float = STATE_BYTES
    """Of a trained parameter: weight, gradient and the optimizer's moments."""

    @property
    def n_bytes(self) -> int:
        """Weights, gradients, optimizer and a live reference."""
        return int(self.size.parameters * self.bytes_each) + self.reference_bytes

    @property
    def bytes_each(self) -> float:
        """Bytes that a parameter of the model costs."""
        if self.adapter_rank is None:
            return self.state_bytes
        return FROZEN_BYTES + self.state_bytes * ADAPTER_SHARE * self.adapter_rank / 16

    @property
    def reference_bytes(self) -> int:
        """The part of a live reference."""
        return self.size.parameters * REFERENCE_BYTES * self.is_reference_live

    @property
    def with_room(self) -> int:
        """The same with a fifth and 2 GiB for activations and the process, with which a run gets along.

        A 135M model on a CPU took 1.8 to 5.5 GiB more than its 2.0, with 512 to 2,048 tokens at once; the token budget shrinks to what is free.
        """
        return int(1.2 * self.n_bytes) + 2 * 2**30

    @property
    def devices(self) -> tuple[int, int]:
        """How many of which of `CARDS` (GiB) hold it, shared out over them where one does not."""
        fitting = [card for card in CARDS if card * 2**30 >= self.with_room]
        return (1, fitting[0]) if fitting else (math.ceil(self.with_room / (CARDS[-1] * 2**30)), CARDS[-1])

    def as_dict(self) -> dict[str, int | bool | str]:
        """Return the need as plain values for JSON."""
        number, card = self.devices
        return {
            "parameters": self.size.parameters,
            "parameters_exact": self.size.is_exact,
            "bytes": self.n_bytes,
            "devices": number,
            "device_gb": card,
            "text": str(self),
        }

    def __str__(self) -> str:
        number, card = self.devices
        held = f"fits {card} GB" if number == 1 else f"{number} x {card} GB"
        return f"{'' if self.size.is_exact else '~'}{gib(self.n_bytes)}, {held}"


def moment_bytes_of(optimizer: str, weight_bytes: int) -> float:
    """Return the bytes that an optimizer (`optim.name`) keeps per trained parameter: moments have the weight's type, or 8 bits and scales."""
    rule, _, bits = optimizer.partition("_")
    return (2 if rule == "adamw" else 1) * (1 + 4 / 256 if bits else weight_bytes)


def gib(n_bytes: float) -> str:
    """Write an amount of memory for people, to two digits or to whole GiB."""
    amount = n_bytes / 2**30
    return "under 0.1 GiB" if amount < 0.1 else f"{amount:.1f} GiB" if amount < 10 else f"{amount:,.0f} GiB"
