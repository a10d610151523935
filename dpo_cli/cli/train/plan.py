"""`dpo plan`: what a run will hold in memory, how long it takes, and what to change where it does not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dpo_cli.preflight.epoch import Epoch
    from dpo_cli.preflight.forecast import Forecast
    from dpo_cli.recipe.schema import Recipe

UNFIT = 7
"""Exit code where the run does not fit: that of a run which is out of memory."""
MEANINGS = {
    "weights": "of the policy",
    "gradients": "{weight_bytes} bytes per trained parameter",
    "moments": "of the optimizer, {moment_bytes:.3g} bytes per trained parameter",
    "reference": "a second model, live",
    "copies": "the blocks' weights in bf16",
    "activations": "kept for backward",
    "head": "logits of a chunk, its weight's copy and gradient",
    "overhead": "the allocator's rest and the CUDA context, by a rule of thumb",
}


def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="A card: a10, h100-80gb, rtx4090 and so on.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", min=1, help="Memory of a GPU that is not in the table.")
    ] = None,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Devices that share each step; all hold all weights.")
    ] = 1,
    price: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="Price of one device for an hour.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Return what a run will hold in memory, how long it takes and what it costs; for this machine, a card or an amount of memory."""
    from dpo_cli.errors import RecipeError
    from dpo_cli.modeling.sizes.shape import shape_of
    from dpo_cli.preflight.device import device_of
    from dpo_cli.preflight.forecast import as_dict, forecast
    from dpo_cli.recipe.load import load

    if gpu is not None and memory is not None:
        raise RecipeError.of("--memory", "is set beside --gpu, which says it too", "one of them")
    loaded = load(recipe, overrides or [])
    shape, device = shape_of(loaded.recipe.model.name), device_of(gpu, memory)
    epoch, why = _epoch(loaded.recipe)
    found = forecast(loaded.recipe, shape, device, epoch, devices)
    cost = None if price is None or found.run_s is None else price * devices * found.run_s / 3600
    if as_json:
        print(json.dumps({"recipe": str(loaded.path), **as_dict(found), "cost_usd": cost}))
    else:
        print(*_table(found), *_lines(found, why, cost), sep="\n")
    if not found.fits:
        raise typer.Exit(UNFIT)


def _epoch(recipe: Recipe) -> tuple[Epoch | None, str]:
    """Return what an epoch holds, or None and why that is not known.

    Raises:
        DataError: rows that cannot be used.
    """
    from dpo_cli.errors import ModelError
    from dpo_cli.preflight.epoch import epoch_of, has_local_rows

    if not has_local_rows(recipe):
        return None, "the rows are not in files here"
    try:
        return epoch_of(recipe), ""
    except ModelError as error:
        return None, f"no tokenizer: {error.problems[0].what}"


def _table(found: Forecast) -> Iterator[str]:
    """Yield the lines of a table: a term, its GiB, what it is."""
    yield f"{'term':<12}{'GiB':>8}"
    for name, n_bytes in vars(found.terms).items():
        if n_bytes:
            yield f"{name:<12}{_gib(n_bytes):>8}  {MEANINGS[name].format_map(vars(found.setup))}"
    room = f"of {_gib(found.device.room)}: a twentieth of the memory is left free"
    yield f"{'total':<12}{_gib(found.terms.total):>8}  {room}"


def _lines(found: Forecast, why: str, cost: float | None) -> Iterator[str]:
    """Yield what follows from the table, a line a fact."""
    from dpo_cli.methods._memory import Size

    shape, setup, device = found.shape, found.setup, found.device
    trained = "all trained" if setup.adapter_rank is None else f"an adapter of rank {setup.adapter_rank}"
    base = ", base in 4 bits" if setup.is_quantized else ""
    yield f"model    {Size(shape.parameters, is_exact=True)} parameters, {trained}{base}, {setup.precision}"
    yield f"device   {device.name}" + (
        f" x {found.devices}: each holds all weights; they are not divided yet" if found.devices > 1 else ""
    )
    yield f"tokens   {found.tokens:,} at once; {found.most_tokens:,} would fit"
    yield f"blocks   {_blocks(found)}"
    if found.epoch is None:
        yield f"rows     not counted: {why}; taken as examples of at most {found.longest:,} tokens"
    else:
        n = found.epoch
        estimated = ", estimated from the first rows of each file" if n.is_estimate else ""
        yield f"rows     an epoch: {n.examples:,} examples, {n.tokens:,} tokens, the longest example {n.longest:,}{estimated}"
        yield f"time     {_time(found)}"
    parts = ", ".join(f"{name} {_amount(n_bytes)}" for name, n_bytes in found.disk.items() if n_bytes)
    yield f"disk     {parts}"
    if cost is not None:
        yield f"cost     about {cost:,.2f} USD"
    yield "FITS" if found.fits else "DOES NOT FIT. Cheapest first, each on top of those before it:"
    for each in found.remedies:
        saved = f" saves {_gib(each.saves)} GiB," if each.saves else ""
        yield f"  {each.change}:{saved} {_gib(each.total)} GiB in all{', fits' if each.fits else ''}"


def _blocks(found: Forecast) -> str:
    words = [
        name
        for name, is_so in (
            ("compiled", found.setup.is_compiled),
            ("checkpointed", found.setup.is_checkpointed),
            ("offloaded", found.setup.is_offloaded),
        )
        if is_so
    ]
    beside = f"; {found.plain_tokens:,} tokens would fit without" if found.setup.is_checkpointed else ""
    return f"{' and '.join(words) or 'plain'}{beside}"


def _time(found: Forecast) -> str:
    if found.epoch_s is None or found.reference_s is None or found.run_s is None:
        return "not estimated: it needs bf16 on a card of the table (--gpu)"
    pieces = [f"about {_duration(found.epoch_s)} an epoch"]
    if found.reference_s:
        pieces.append(f"{_duration(found.reference_s)} for the reference, once")
    pieces.append(f"{_duration(found.run_s)} in all ({found.steps:,} steps), evaluation not counted")
    if found.shape.parameters < 0.5e9:
        pieces.append("longer for a model as small as this, which leaves a card idle")
    return "; ".join(pieces)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.2f}"


def _amount(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.3g} {unit}"
    return f"{n_bytes:,.0f} bytes"
