"""Forecasts: tokens at once, hours, disk and remedies, each beside another way to compute it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import LlamaConfig

from dpo_cli.errors import RecipeError
from dpo_cli.modeling.sizes.cards import CARDS, COMPILED_USE, PLAIN_USE, card_called, card_named
from dpo_cli.modeling.sizes.footprint import BUSY_TOKENS, MAX_TOKENS
from dpo_cli.modeling.sizes.shape import KNOWN
from dpo_cli.preflight.device import Device, device_of
from dpo_cli.preflight.epoch import Epoch, epoch_of, has_local_rows
from dpo_cli.preflight.forecast import RECOMPUTE_TIME, forecast
from dpo_cli.recipe.schema import Recipe
from scripts.gpu.shapes import fields_of, random_pairs, step_flops
from tests.fakes import write_jsonl, write_model
from tests.recipe.build import MINIMAL, load_text

GIB = 2**30
H200 = device_of("h200", None)
EIGHT = KNOWN["llama318b"]
ONE = KNOWN["llama321b"]


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return load_text(folder, MINIMAL, *overrides).recipe


def epoch_with(n: int, n_row: int, share: float = 0.5) -> Epoch:
    """Return what an epoch of n equal pairs holds."""
    (group,) = random_pairs(1, n_row, share, 1000)
    n_prompt, lengths = len(group.prompt), [len(ids) for ids in group.completions]
    seen = n_prompt**2 / 2 + sum(length * n_prompt + length**2 / 2 for length in lengths)
    tokens = group.n_tokens
    return Epoch(
        n, 2 * n, n * tokens, n * sum(lengths), n * group.n_row_tokens, n * seen, tokens, is_estimate=False
    )


@pytest.mark.parametrize(("n", "use"), [(8, PLAIN_USE), (32 * 300, COMPILED_USE)])
def test_hours_are_the_operations_of_a_step_over_what_the_card_does(
    tmp_path: Path, n: int, use: float
) -> None:
    class Model:
        config = LlamaConfig(**fields_of("1B", tiny=False))

    operations = step_flops(Model, random_pairs(n, 2048, 0.5, 1000), is_shared=True)  # type: ignore[arg-type]

    found = forecast(recipe_of(tmp_path, "method.name=simpo"), ONE, H200, epoch_with(n, 2048))

    assert found.epoch_s == pytest.approx(operations / (989e12 * use))
    assert found.reference_s == 0
    assert found.setup.is_compiled == (use == COMPILED_USE)


def test_the_reference_is_a_third_and_every_device_takes_its_share(tmp_path: Path) -> None:
    epoch = epoch_with(64, 2048)
    alone = forecast(recipe_of(tmp_path, "train.epochs=3"), ONE, H200, epoch)
    live = forecast(recipe_of(tmp_path, "train.epochs=3", "reference.source=live"), ONE, H200, epoch)
    shared = forecast(recipe_of(tmp_path, "train.epochs=3"), ONE, H200, epoch, devices=4)

    assert alone.epoch_s and alone.reference_s and alone.run_s and live.epoch_s and shared.run_s
    assert alone.reference_s == pytest.approx(alone.epoch_s / 3)
    assert alone.run_s == pytest.approx(3 * alone.epoch_s + alone.reference_s)
    assert live.epoch_s == pytest.approx(alone.epoch_s + alone.reference_s)
    assert live.reference_s == 0
    assert live.terms.reference == 4 * ONE.parameters
    assert shared.run_s == pytest.approx(alone.run_s / 4)
    assert shared.terms.weights == alone.terms.weights
    assert shared.terms.gradients == alone.terms.gradients


def test_time_grows_with_what_is_computed_again_and_is_unknown_without_a_peak(tmp_path: Path) -> None:
    epoch = epoch_with(64, 2048)
    plain = forecast(recipe_of(tmp_path), ONE, H200, epoch)
    full = forecast(recipe_of(tmp_path, "train.checkpoint_activations=full"), ONE, H200, epoch)
    adapter = forecast(recipe_of(tmp_path, "model.adapter={rank: 16}"), ONE, H200, epoch)

    assert plain.epoch_s and full.epoch_s and adapter.epoch_s
    assert full.epoch_s == pytest.approx(RECOMPUTE_TIME * plain.epoch_s)
    assert 0.66 < adapter.epoch_s / plain.epoch_s < 0.7
    assert forecast(recipe_of(tmp_path), ONE, H200).epoch_s is None
    assert forecast(recipe_of(tmp_path), ONE, device_of(None, 80), epoch).run_s is None
    assert forecast(recipe_of(tmp_path, "train.precision=fp32"), ONE, H200, epoch).epoch_s is None


def test_auto_takes_what_fits_and_checkpoints_where_that_is_little(tmp_path: Path) -> None:
    recipe, epoch = recipe_of(tmp_path, "train.batch_size=512"), epoch_with(2000, 512)

    wide, narrow = (
        forecast(recipe, ONE, H200, epoch),
        forecast(recipe, ONE, device_of("rtx4090", None), epoch),
    )

    assert wide.tokens == wide.most_tokens == wide.plain_tokens > BUSY_TOKENS
    assert not wide.setup.is_checkpointed
    assert narrow.setup.is_checkpointed
    assert narrow.plain_tokens < BUSY_TOKENS < narrow.tokens == narrow.most_tokens <= MAX_TOKENS
    assert wide.fits and narrow.fits and not narrow.remedies
    asked = replace(recipe, train=replace(recipe.train, max_tokens_per_micro_batch=1024))
    assert forecast(asked, ONE, H200, epoch).tokens == 1024
    few = replace(recipe, train=replace(recipe.train, batch_size=2))
    assert forecast(few, ONE, H200, epoch).tokens == 2 * epoch.longest


@pytest.mark.parametrize(
    ("overrides", "card", "changes"),
    [
        (["model.adapter={rank: 16}", "train.max_tokens_per_micro_batch=16384"], "a10", 1),
        (["reference.source=live", "train.checkpoint_activations=none"], "rtx4090", 6),
        (["data.max_length=512"], "a100-80gb", 1),
    ],
)
def test_remedies_keep_what_they_promise(
    tmp_path: Path, overrides: list[str], card: str, changes: int
) -> None:
    device = device_of(card, None)
    found = forecast(recipe_of(tmp_path, *overrides), EIGHT, device)

    steps = [each for each in found.remedies if each.saves]
    assert not found.fits and len(steps) == changes
    assert [each.fits for each in steps] == [False] * (changes - 1) + [True]
    totals = [found.terms.total, *(each.total for each in steps)]
    assert [each.saves for each in steps] == [a - b for a, b in pairwise(totals)]
    taken = [*overrides, *(word for each in steps for word in shlex.split(each.change))]
    changed = forecast(recipe_of(tmp_path, *taken), EIGHT, device)
    assert changed.fits
    for larger in found.remedies[len(steps) :]:
        name = larger.change.split()[1].rstrip(",")
        assert larger.total <= device_of(name, None).room
        assert device_of(name, None).memory > device.memory


def test_disk_is_what_checkpoints_model_and_store_take(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "train.keep_last=3", "model.save_dtype=bf16")

    disk = forecast(recipe, ONE, H200, epoch_with(100, 512)).disk

    assert disk == {
        "checkpoints": 4 * 12 * ONE.parameters,
        "model": 2 * ONE.parameters,
        "store": 200 * 50,
    }
    assert (
        forecast(recipe_of(tmp_path, "method.name=simpo"), ONE, H200, epoch_with(9, 512)).disk["store"] == 0
    )


def rows(n: int) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"say {i % 7}" * (1 + i % 5),
            "chosen": "yes " * (3 + i % 4),
            "rejected": "no " * (2 + i % 3),
        }
        for i in range(n)
    ]


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_an_epoch_is_estimated_from_its_first_rows(tmp_path: Path, path: str) -> None:
    text = f"model: {{name: {write_model(tmp_path / 'tiny')}}}\ndata: {{train: [{{path: rows.jsonl}}]}}\n"
    settings = ["data.split.eval=0", f"model.attention={path}"]
    write_jsonl(tmp_path / "rows.jsonl", rows(840))

    sampled = epoch_of(load_text(tmp_path, text, *settings).recipe)
    write_jsonl(tmp_path / "rows.jsonl", rows(280))
    whole = epoch_of(load_text(tmp_path, text, *settings).recipe)

    assert sampled.is_estimate and not whole.is_estimate
    assert (sampled.examples, whole.examples) == (840, 280)
    assert sampled.completions == 1680
    # The rows repeat every 420, of which the sample sees the first 300.
    for name in ("tokens", "scored", "gathered", "seen"):
        assert getattr(sampled, name) == pytest.approx(3 * getattr(whole, name), rel=0.01)
    assert sampled.longest == whole.longest
    assert whole.gathered >= whole.tokens
    assert (whole.gathered == whole.tokens) == (path == "padded")
    limited = epoch_of(load_text(tmp_path, text, *settings, "data.train[0].limit=10").recipe)
    assert (limited.examples, limited.is_estimate) == (10, False)


def test_rows_of_a_hub_set_are_not_here(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows(1))

    assert has_local_rows(recipe_of(tmp_path))
    assert not has_local_rows(recipe_of(tmp_path, "data.train=[{path: org/set}]"))


def test_cards_are_found_by_name_and_by_what_the_driver_calls_them() -> None:
    assert [card.name for card in CARDS] == [card_named(card.name.upper()).name for card in CARDS]
    for name, expected in {
        "NVIDIA H200": "h200",
        "NVIDIA H100 80GB HBM3": "h100-80gb",
        "NVIDIA A100-SXM4-80GB": "a100-80gb",
        "NVIDIA A100-SXM4-40GB": "a100-40gb",
        "NVIDIA GeForce RTX 4090": "rtx4090",
        "NVIDIA A10": "a10",
        "NVIDIA L4": "l4",
        "NVIDIA L40S": "l40s",
    }.items():
        card = card_called(name)
        assert card is not None and card.name == expected
    assert card_called("NVIDIA GeForce GTX 1080") is None
    with pytest.raises(RecipeError, match="did you mean 'h100-80gb'"):
        card_named("h100-80")


def test_this_machine_is_what_is_free_here() -> None:
    found = device_of(None, None)

    assert isinstance(found, Device) and found.memory > 0
    assert device_of(None, 24).memory == 24 * GIB
    assert not device_of("v100-32gb", None).has_bf16
