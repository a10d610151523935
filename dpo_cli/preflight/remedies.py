"""What to change in a recipe whose step does not fit, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.sizes.cards import CARDS
from dpo_cli.modeling.sizes.footprint import Setup, terms
from dpo_cli.modeling.sizes.shape import Shape
from dpo_cli.preflight.device import Device, on
from dpo_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Remedy:
    """A change that saves memory, on top of those before it."""

    change: str
    """An override, or what to buy."""
    saves: int
    """Bytes, beside what was planned before it."""
    total: int
    """Bytes with it."""
    fits: bool


def remedies(
    recipe: Recipe, shape: Shape, setup: Setup, device: Device, tokens: int, longest: int, scored: float
) -> Iterator[Remedy]:
    """Yield changes, cheapest first, each on top of those before it, until the step fits; none where it does."""
    planned = before = terms(shape, setup, tokens, int(scored * tokens)).total
    if planned <= device.room:
        return
    for change, changed, n_tokens in _changes(recipe, setup, device, tokens, longest):
        total = terms(shape, changed, n_tokens, int(scored * n_tokens)).total
        if total >= before:
            continue
        yield Remedy(change, before - total, total, total <= device.room)
        before = total
        if total <= device.room:
            break
    for card in CARDS:
        whole = replace(setup, chunk_logits=on(card).chunk_logits)
        total = terms(shape, whole, tokens, int(scored * tokens)).total
        if total <= on(card).room:
            yield Remedy(f"--gpu {card.name}, with no change", 0, total, True)
            return


def _changes(
    recipe: Recipe, setup: Setup, device: Device, tokens: int, longest: int
) -> Iterator[tuple[str, Setup, int]]:
    """Yield what can be changed, with the setup and the tokens at once after it."""
    if tokens > longest:
        yield f"train.max_tokens_per_micro_batch={longest}", setup, longest
    if setup.has_live_reference:
        setup = replace(setup, has_live_reference=False)
        yield "reference.source=cache", setup, longest
    if not setup.is_checkpointed:
        setup = replace(setup, is_checkpointed=True)
        yield "train.checkpoint_activations=full", setup, longest
    name: str = recipe.optim.name
    if setup.is_full and setup.precision == "bf16":
        if setup.weight_bytes == 4:
            setup = replace(setup, weight_bytes=2, moment_bytes=moment_bytes_of(name, 2))
            yield "train.weights=bf16", setup, longest
        if not name.endswith("_8bit"):
            name += "_8bit"
            setup = replace(setup, moment_bytes=moment_bytes_of(name, setup.weight_bytes))
            yield f"optim.name={name}", setup, longest
    if not setup.is_offloaded and device.is_gpu:
        setup = replace(setup, is_offloaded=True)
        yield "train.checkpoint_activations=offload", setup, longest
    if setup.is_full:
        whole = " train.weights=fp32" if setup.weight_bytes == 2 else ""
        setup = replace(setup, adapter_rank=16, weight_bytes=4, moment_bytes=moment_bytes_of(name, 4))
        yield f"'model.adapter={{rank: 16}}'{whole}", setup, longest
    if not setup.is_quantized and device.is_gpu:
        yield "model.quantize=nf4", replace(setup, is_quantized=True), longest
    shorter = max(2, longest // 2)
    yield (
        f"data.max_length={recipe.data.max_length // 2}",
        replace(setup, is_quantized=device.is_gpu),
        shorter,
    )
