"""GPUs by name: their memory and the peak of their bf16 matrix products. No torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from dpo_cli.errors import RecipeError


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    gib: float
    """Memory that a process finds on it, rounded down: error correction and the driver take some of the datasheet's figure."""
    bf16_tflops: float | None
    """Peak of dense bf16 products with fp32 sums by the datasheet, 1e12 operations a second; None where it has no bf16."""
    called: str
    """What the driver's name of it contains."""


CARDS = (
    Card("rtx3090", 23.5, 71.0, "RTX 3090"),
    Card("rtx4090", 23.5, 165.0, "RTX 4090"),
    Card("l4", 22.0, 121.0, "NVIDIA L4"),
    Card("a10", 22.0, 125.0, "A10"),
    Card("v100-32gb", 31.7, None, "V100"),
    Card("a100-40gb", 39.4, 312.0, "A100-SXM4-40GB"),
    Card("l40s", 44.4, 362.0, "L40S"),
    Card("a100-80gb", 79.1, 312.0, "A100-SXM4-80GB"),
    Card("h100-80gb", 79.1, 989.0, "H100 80GB HBM3"),
    Card("h200", 139.8, 989.0, "H200"),
)
COMPILED_USE, PLAIN_USE = 0.47, 0.35
"""Share of the datasheet's bf16 peak that steps of a 1B shape reached on an H200, blocks compiled and plain: 0.62 and 0.47 of the 750 TFLOP/s
that one large product reached there."""


def card_named(name: str) -> Card:
    """Return the card of that name.

    Raises:
        RecipeError: there is none in the table.
    """
    names = [card.name for card in CARDS]
    if name.lower() in names:
        return CARDS[names.index(name.lower())]
    near = difflib.get_close_matches(name.lower(), names, 1)
    fix = f"did you mean '{near[0]}'? " if near else ""
    raise RecipeError.of(
        "--gpu", f"no card '{name}'", f"{fix}one of {', '.join(names)}, or --memory GIB of another"
    )


def card_called(name: str) -> Card | None:
    """Return the card that a driver calls by a name such as "NVIDIA H200"; None where the table has none."""
    words = f"{name} "
    found = [card for card in CARDS if f"{card.called} " in words]
    return max(found, key=lambda card: len(card.called), default=None)
