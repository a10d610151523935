"""Write docs/memory.md: which models train on which cards, with all weights or an adapter, by the sums of `dpo plan`.

python -m scripts.plan_table > docs/memory.md
"""

from __future__ import annotations

from dataclasses import replace

from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.sizes.cards import card_named
from dpo_cli.modeling.sizes.footprint import SPARE, Setup, fitting_tokens, needs_checkpointing, terms
from dpo_cli.modeling.sizes.shape import KNOWN, Shape
from dpo_cli.preflight.device import Device, on

MODELS = {
    "SmolLM2 135M": "smollm2135m",
    "Qwen2.5 0.5B": "qwen2505b",
    "Llama 3.2 1B": "llama321b",
    "Llama 3.2 3B": "llama323b",
    "Qwen3 8B": "qwen38b",
    "Llama 3.1 8B": "llama318b",
    "Qwen2.5 14B": "qwen2514b",
    "Qwen2.5 32B": "qwen2532b",
}
CARDS = ("rtx4090", "l40s", "h100-80gb", "h200")
WAYS = {
    "all weights": Setup("bf16"),
    "all weights, in bf16": Setup("bf16", weight_bytes=2, moment_bytes=moment_bytes_of("adamw", 2)),
    "all weights, in bf16, moments in 8 bits": Setup(
        "bf16", weight_bytes=2, moment_bytes=moment_bytes_of("adamw_8bit", 2)
    ),
    "LoRA, rank 16": Setup("bf16", adapter_rank=16),
    "QLoRA, rank 16": Setup("bf16", adapter_rank=16, is_quantized=True),
}
LEAST = 2048
"""Tokens at once below which a way does not count as fitting: an example of 1,024 tokens a row, prompt and both answers."""
PAGE = f"""# What fits on one GPU

Made by `python -m scripts.plan_table > docs/memory.md` from the sums of `dpo plan`; most of it has not been run. The sums were within 5% of 21 peaks
measured on an H200 with a 135M, a 1B and an 8B shape (`tests/modeling/test_footprint.py`).

A cell says how many tokens can be computed at once in bf16, blocks not compiled, with {SPARE:.0%} of the memory left free. A star: with checkpointed
blocks, as `train.checkpoint_activations: auto` chooses where fewer than 4,096 tokens would fit without. A dash: fewer than {LEAST:,} tokens fit, and
an example of two answers with 1,024 tokens each may not. The largest that `auto` takes is 32,768.
"""


def cell(shape: Shape, way: Setup, device: Device) -> str:
    """Return the tokens that fit at once, or a dash."""
    setup = replace(way, chunk_logits=device.chunk_logits)
    tokens = fitting_tokens(shape, setup, device.memory)
    star = ""
    if needs_checkpointing(tokens, "auto"):
        tokens, star = fitting_tokens(shape, replace(setup, is_checkpointed=True), device.memory), " *"
    return "-" if tokens < LEAST else f"{tokens:,}{star}"


def page() -> str:
    """Return the whole page."""
    cards = [card_named(name) for name in CARDS]
    parts = [PAGE]
    for title, way in WAYS.items():
        heads = [f"{card.name} ({card.gib:g} GiB)" for card in cards]
        lines = [
            f"## {title[0].upper()}{title[1:]}\n",
            f"| model | state, GiB | {' | '.join(heads)} |",
            f"|---|---|{'---|' * len(cards)}",
        ]
        for name, known in MODELS.items():
            state = terms(KNOWN[known], way, 0).state / 2**30
            cells = [cell(KNOWN[known], way, on(card)) for card in cards]
            lines.append(f"| {name} | {state:.1f} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
