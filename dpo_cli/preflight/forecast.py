"""What a run will need before it starts: memory by term, tokens at once, hours, disk, and what to change where it does not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from dpo_cli import methods
from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.sizes.cards import COMPILED_USE, PLAIN_USE
from dpo_cli.modeling.sizes.footprint import (
    CPU_TOKENS,
    MAX_TOKENS,
    Setup,
    Terms,
    fitting_tokens,
    needs_checkpointing,
    terms,
    trained_parameters,
)
from dpo_cli.modeling.sizes.shape import Shape, rank_of
from dpo_cli.preflight.device import Device
from dpo_cli.preflight.epoch import Epoch
from dpo_cli.preflight.remedies import Remedy, remedies
from dpo_cli.recipe.schema import Recipe

RECOMPUTE_TIME = 1.23
"""Of a step with checkpointed blocks, beside a plain one: measured on a 1B shape."""
ADAPTER_RECOMPUTE_TIME = 2.0
"""The same with an adapter, whose plain backward is as short as a forward: 1.8 (compiled) to 2.2, measured on an 8B shape."""
QUANTIZED_TIME = 4 / 3
"""Of a step on a base in 4 bits, beside one in bf16: measured on an 8B shape."""
STORE_BYTES = 50
"""Of a completion in the reference store: a key of 32 characters, its sum and its count."""


@dataclass(frozen=True)
class Forecast:
    """What a recipe needs on a device."""

    shape: Shape
    setup: Setup
    device: Device
    terms: Terms
    tokens: int
    """Computed at once: what the recipe says, or what `auto` would take; at least the longest example."""
    longest: int
    """Tokens of the longest example; without the rows, of the longest that `data.max_length` allows."""
    most_tokens: int
    """That fit at once."""
    plain_tokens: int
    """That would fit with plain blocks."""
    devices: int
    epoch: Epoch | None
    steps: int | None
    """Of the whole run; None where the rows are not here."""
    epoch_s: float | None
    reference_s: float | None
    """Of the pass that fills the store; 0 where there is none, None where it cannot be said."""
    run_s: float | None
    disk: dict[str, int]
    """Bytes of checkpoints, of the saved model, and of the store."""
    remedies: tuple[Remedy, ...]

    @property
    def fits(self) -> bool:
        """Whether the step's peak is within the room."""
        return self.terms.total <= self.device.room


def forecast(
    recipe: Recipe, shape: Shape, device: Device, epoch: Epoch | None = None, devices: int = 1
) -> Forecast:
    """Return what a recipe needs.

    Args:
        recipe: checked.
        shape: of its model.
        device: of the run.
        epoch: what an epoch holds; None where the rows are not here.
        devices: how many such devices: each holds all weights and computes its share of a step.
    """
    train = recipe.train
    steps = None if epoch is None else _steps(recipe, epoch)
    plain = _setup(recipe, device, epoch, steps, devices)
    budget, scored = train.max_tokens_per_micro_batch, 1.0 if epoch is None else epoch.scored / epoch.tokens
    most = MAX_TOKENS if device.is_gpu else CPU_TOKENS
    plain_tokens = fitting_tokens(shape, plain, device.memory, scored=scored, most=most)
    wanted = train.checkpoint_activations
    is_needed = wanted == "auto" and device.is_gpu and needs_checkpointing(plain_tokens, budget)
    setup = replace(
        plain, is_checkpointed=wanted in ("full", "offload") or is_needed, is_offloaded=wanted == "offload"
    )
    fitting = fitting_tokens(shape, setup, device.memory, scored=scored, most=most)
    longest, of_step = _examples(recipe, epoch, devices)
    tokens = max(longest, min(fitting if budget == "auto" else int(budget), of_step))
    found = terms(shape, setup, tokens, int(scored * tokens))
    epoch_s, reference_s = _times(recipe, shape, setup, device, epoch, devices)
    run_s = None
    if epoch is not None and steps is not None and epoch_s is not None and reference_s is not None:
        run_s = reference_s + epoch_s * steps * train.batch_size / epoch.examples
    return Forecast(
        shape=shape,
        setup=setup,
        device=device,
        terms=found,
        tokens=tokens,
        longest=longest,
        most_tokens=fitting,
        plain_tokens=plain_tokens,
        devices=devices,
        epoch=epoch,
        steps=steps,
        epoch_s=epoch_s,
        reference_s=reference_s,
        run_s=run_s,
        disk=_disk(recipe, shape, setup, epoch),
        remedies=tuple(remedies(recipe, shape, setup, device, tokens, longest, scored)),
    )


def _setup(recipe: Recipe, device: Device, epoch: Epoch | None, steps: int | None, devices: int) -> Setup:
    """Return how the recipe trains on a device, with plain blocks."""
    train, model = recipe.train, recipe.model
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if device.has_bf16 else "fp32"
    rank = rank_of(model.name) if model.adapter is None else model.adapter.rank
    weight_bytes = 2 if rank is None and precision == "bf16" and train.weights == "bf16" else 4
    return Setup(
        precision=precision,
        weight_bytes=weight_bytes,
        moment_bytes=moment_bytes_of(recipe.optim.name, weight_bytes),
        adapter_rank=rank,
        is_quantized=model.quantize is not None,
        has_live_reference=_needs_reference(recipe) and recipe.reference.source == "live",
        is_compiled=_compiles(train.compile, device, steps),
        is_packed=model.attention != "padded",
        keys_each=4 / 3 if epoch is None else epoch.gathered / epoch.tokens,
        chunk_logits=device.chunk_logits,
    )


def _compiles(wanted: str, device: Device, steps: int | None) -> bool:
    if wanted != "auto" or not device.is_gpu or steps is None:
        return wanted == "blocks"
    from dpo_cli.modeling.exactness import COMPILED_STEPS

    return steps >= COMPILED_STEPS


def _needs_reference(recipe: Recipe) -> bool:
    return methods.get(recipe.method.name).needs_reference and recipe.reference.source != "none"


def _steps(recipe: Recipe, epoch: Epoch) -> int:
    from dpo_cli.train.step_plan import total_steps

    train = recipe.train
    return total_steps(epoch.examples, train.batch_size, train.epochs, train.max_steps)


def _examples(recipe: Recipe, epoch: Epoch | None, devices: int) -> tuple[int, int]:
    """Return the tokens of the longest example, and of a device's share of a step; without the rows, by `data.max_length`."""
    share = max(1, recipe.train.batch_size // devices)
    if epoch is not None:
        return epoch.longest, max(epoch.longest, round(share * epoch.tokens / epoch.examples))
    n_answers = 2 if methods.get(recipe.method.name).data == "pairs" else 1
    longest = n_answers * recipe.data.max_length
    return longest, share * longest


def _times(
    recipe: Recipe, shape: Shape, setup: Setup, device: Device, epoch: Epoch | None, devices: int
) -> tuple[float | None, float | None]:
    """Return the seconds of an epoch and of the pass that fills the reference store.

    Two operations a weight and token forward, as many for the gradient of a layer's input and, where weights are trained, as many for
    theirs. Attention has what a causal mask lets through, the head scored positions only.
    """
    if epoch is None or device.tflops is None or setup.precision != "bf16":
        return None, None
    forward = 2.0 * shape.per_token * epoch.tokens + 2.0 * shape.head * epoch.scored
    attention = 4.0 * shape.layers * shape.query * epoch.seen
    backward = (2 if setup.adapter_rank is None else 1) * forward + 2 * attention
    rate = device.tflops * 1e12 * devices
    again = RECOMPUTE_TIME if setup.is_full else ADAPTER_RECOMPUTE_TIME
    slower = (again if setup.is_checkpointed else 1) * (QUANTIZED_TIME if setup.is_quantized else 1)
    once = (forward + attention) / (rate * PLAIN_USE)
    step_s = (
        slower
        * (forward + attention + backward)
        / (rate * (COMPILED_USE if setup.is_compiled else PLAIN_USE))
    )
    if not _needs_reference(recipe):
        return step_s, 0.0
    return (step_s + once, 0.0) if setup.has_live_reference else (step_s, once)


def _disk(recipe: Recipe, shape: Shape, setup: Setup, epoch: Epoch | None) -> dict[str, int]:
    trained, keep = trained_parameters(shape, setup.adapter_rank), recipe.train.keep_last + 1
    is_stored = epoch is not None and _needs_reference(recipe) and not setup.has_live_reference
    return {
        # Weights and moments; a new checkpoint is complete before an old one is removed.
        "checkpoints": int(keep * (setup.weight_bytes + setup.moment_bytes) * trained),
        "model": (2 if recipe.model.save_dtype == "bf16" else 4) * trained,
        "store": STORE_BYTES * epoch.completions if epoch is not None and is_stored else 0,
    }


def as_dict(found: Forecast) -> dict[str, Any]:
    """Return a forecast as plain values for JSON: bytes, seconds and tokens."""
    return {
        "fits": found.fits,
        "device": {**asdict(found.device), "room": found.device.room, "count": found.devices},
        "model": asdict(found.shape),
        "setup": asdict(found.setup),
        "bytes": {**vars(found.terms), "total": found.terms.total},
        "tokens": {
            "at_once": found.tokens,
            "most": found.most_tokens,
            "most_with_plain_blocks": found.plain_tokens,
        },
        "epoch": None if found.epoch is None else asdict(found.epoch),
        "steps": found.steps,
        "seconds": {"epoch": found.epoch_s, "reference": found.reference_s, "run": found.run_s},
        "disk": found.disk,
        "remedies": [asdict(each) for each in found.remedies],
    }
