"""Adapters: a run trains one on a frozen base, whose values are the reference, and saves what peft and servers load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from dpo_cli.engine.open_model import advice, policy_start
from dpo_cli.errors import ModelError
from dpo_cli.modeling.adapters import attach, base_parameters, continue_adapter
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.hub import model_start
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Adapter
from dpo_cli.reference.fingerprint import remembered_digest, weights_digest
from dpo_cli.runs.status import Status
from dpo_cli.train.run import train
from dpo_cli.types import TokenGroup
from tests.fakes import write_model
from tests.train.tiny_recipe import write_recipe

LORA = ("model.adapter={rank: 4, alpha: 16}", "optim.lr=2e-2")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def trained(recipe: Path) -> tuple[Path, Status]:
    """A finished adapter run and its status."""
    return run(recipe, *LORA, "name=lora")


def run(recipe: Path, *overrides: str) -> tuple[Path, Status]:
    places = (f"train.output_dir={recipe.parent}/runs", f"reference.store={recipe.parent}/store")
    status = train(load(str(recipe), [*places, *overrides]), "dpo train tiny.yaml")
    return Path(status.run_dir), status


def rows(seed: int = 0) -> list[TokenGroup]:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, 260, n).astype(np.int32) for n in (6, 4, 9)]
    return [TokenGroup(ids[0], tuple(ids[1:]), tuple(np.ones(len(own), dtype=bool) for own in ids[1:]))]


def test_it_learns_and_what_is_saved_is_what_was_measured(trained: tuple[Path, Status]) -> None:
    folder, status = trained
    losses = [
        json.loads(line).get("train/loss") for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]

    assert status.eval is not None and status.eval["margin"] > 0.02
    assert min(loss for loss in losses if loss) < losses[0]
    assert status.margins["saved"] == pytest.approx(status.margins["trained"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_folder_is_small_and_loads_in_peft(trained: tuple[Path, Status], recipe: Path) -> None:
    folder = trained[0] / "model"
    assert not list(folder.glob("model*.safetensors")) and not list(folder.glob("*.bin"))
    assert model_start(str(trained[0]), None, weights=True).base == recipe.parent / "tiny"

    theirs = AutoPeftModelForCausalLM.from_pretrained(folder)
    merged = theirs.merge_and_unload()
    ours = load_model(recipe.parent / "tiny", 300)
    continue_adapter(ours, folder)
    plain = [Scorer(model) for model in (ours, merged, load_model(recipe.parent / "tiny", 300))]
    adapted, whole, base = (score(scorer, scorer.layout(rows())).total for scorer in plain)

    torch.testing.assert_close(adapted, whole, atol=1e-3, rtol=0)
    assert (adapted - base).abs().max() > 0.05, "the adapter does something"


def test_fault_043_the_reference_is_the_base_with_the_adapter_off(
    trained: tuple[Path, Status], recipe: Path
) -> None:
    lora = load(str(recipe), LORA).recipe
    model = load_model(recipe.parent / "tiny", 300)
    bare = weights_digest(model)
    before = score(Scorer(model), Scorer(model).layout(rows())).total
    assert lora.model.adapter is not None
    attach(model, lora.model.adapter, 0)
    scorer = Scorer(model)

    torch.testing.assert_close(score(scorer, scorer.layout(rows())).total, before, atol=1e-5, rtol=0)
    assert weights_digest(model) == bare, "all runs on one base share its values, whatever they train"
    base = load_file(recipe.parent / "tiny" / "model.safetensors")
    assert all(torch.equal(weight, base[name]) for name, weight in base_parameters(model) if name in base)


def test_full_and_adapter_runs_share_reference_values(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(recipe, "train.max_steps=1", "name=full")
    capfd.readouterr()
    run(recipe, *LORA, "train.max_steps=1", "name=shared")

    assert ", 0 scored" in capfd.readouterr().err


def test_a_run_from_an_sft_adapter_has_that_adapter_as_its_reference(recipe: Path, tmp_path: Path) -> None:
    sft, _ = run(recipe, *LORA, "method.name=sft", "name=sft")
    dpo, status = run(recipe, f"model.name={sft}", "optim.lr=2e-2", "name=after", "log.every=1")
    first = json.loads((dpo / "metrics.jsonl").read_text().splitlines()[0])

    assert first["train/rewards/margins"] == pytest.approx(0, abs=1e-5), "policy = reference before step 1"
    start = policy_start(load(str(recipe), [f"model.name={sft}"]).recipe, weights=True)
    assert start.adapter == sft / "model" and start.base == recipe.parent / "tiny"
    model = load_model(start.base, 300)
    bare = weights_digest(model)
    continue_adapter(model, sft / "model")
    whole = weights_digest(model, adapter=True)
    assert whole != bare == weights_digest(model)
    folders, memo = [start.base, start.adapter], tmp_path / "digests.json"
    assert remembered_digest(model, folders, memo) == whole
    settings = start.adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "lora_alpha": 64}))
    louder = load_model(start.base, 300)
    continue_adapter(louder, start.adapter)
    assert remembered_digest(louder, folders, memo) != whole, "the same tensors, with another factor"
    assert model_start(str(dpo), None, weights=True).base == recipe.parent / "tiny"
    assert status.eval is not None


def test_a_resumed_adapter_run_equals_an_uninterrupted_one(recipe: Path) -> None:
    from dpo_cli.runs.checkpoint import latest_checkpoint

    overrides = (*LORA, "model.adapter.dropout=0.2", "train.save_every=4")
    whole, _ = run(recipe, *overrides, "name=whole")
    cut, _ = run(recipe, *overrides, "name=cut")
    checkpoint, _ = latest_checkpoint(cut / "checkpoints")
    assert checkpoint is not None and checkpoint.step == 8
    names = load_file(checkpoint.path / "model.safetensors")
    assert all("lora_" in name for name in names), "only what is trained"

    import shutil

    shutil.rmtree(checkpoint.path)
    status = json.loads((cut / "status.json").read_text())
    (cut / "status.json").write_text(json.dumps({**status, "state": "running"}))
    shutil.rmtree(cut / "model")
    again, _ = run(recipe, *overrides, "name=cut")
    one, other = (load_file(path / "model" / "adapter_model.safetensors") for path in (whole, again))
    assert again == cut
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_a_head_with_an_adapter_gives_its_own_logits_and_gradients(path: str, tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path), 300)
    attach(model, Adapter(rank=4, targets=["q_proj", "lm_head"]), 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.05)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    group = rows()[0]
    whole = [torch.from_numpy(np.concatenate([group.prompt, ids])).long() for ids in group.completions]
    own = torch.stack(
        [
            model(input_ids=ids[None], use_cache=False)
            .logits[0, 5:-1]
            .double()
            .log_softmax(-1)
            .gather(1, ids[6:, None])
            .sum()
            for ids in whole
        ]
    )
    scorer = Scorer(model, path)  # type: ignore[arg-type]
    found = score(scorer, scorer.layout([group])).total

    torch.testing.assert_close(found.double(), own, atol=1e-4, rtol=0)
    for one, other in zip(
        torch.autograd.grad(found.sum(), trained), torch.autograd.grad(own.sum(), trained), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_reward_model_trains_its_head_whole(recipe: Path) -> None:
    folder, status = run(recipe, *LORA, "method.name=reward", "name=reward")
    saved = load_file(folder / "model" / "adapter_model.safetensors")

    assert any("score" in name for name in saved)
    assert status.margins["saved"] == pytest.approx(status.margins["trained"], rel=1e-3)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_same_seed_draws_the_same_adapter_in_fp32_on_a_bf16_base(kind: str, tmp_path: Path) -> None:
    folder, drawn = write_model(tmp_path), []
    for seed in (1, 1, 2):
        model = load_model(folder, 300, dtype=torch.bfloat16)
        attach(model, Adapter(kind=kind, rank=2), seed)  # type: ignore[arg-type]
        drawn.append(torch.cat([w.flatten() for n, w in model.named_parameters() if "lora_A" in n]))
    frozen = {weight.dtype for weight in model.parameters() if not weight.requires_grad}

    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert frozen == {torch.bfloat16} and drawn[0].dtype == torch.float32


BESIDE = [
    {},
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["embed_tokens"]},
    {"targets": ["lm_head"]},
]


@pytest.mark.parametrize("beside", BESIDE, ids=str)
def test_a_base_in_bf16_passes_the_check_of_the_head_and_a_wrong_head_does_not(
    recipe: Path, beside: dict[str, list[str]]
) -> None:
    model = load_model(recipe.parent / "tiny", 300, dtype=torch.bfloat16)
    attach(model, Adapter(rank=2, **beside), 0)  # type: ignore[arg-type]
    scorer = Scorer(model)
    arguments = (scorer, rows(), "auto", lambda: torch.autocast("cpu", torch.bfloat16), False)

    assert choose_path(*arguments).path == "packed"
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
        model.config.logit_scale = 0.1  # which this model's own forward does not know
    with pytest.raises(ModelError, match="the model's output is not its head applied"):
        choose_path(*arguments)


def test_what_cannot_fit_is_named(recipe: Path, trained: tuple[Path, Status], tmp_path: Path) -> None:
    model = load_model(recipe.parent / "tiny", 300)
    with pytest.raises(ModelError, match=r"model.adapter.targets: the adapter fits nowhere.*q_proj"):
        attach(model, Adapter(targets=["qq_proj"]), 0)
    with pytest.raises(ModelError, match=r"modules_to_save: the model has no module 'embed'"):
        attach(load_model(recipe.parent / "tiny", 300), Adapter(modules_to_save=["embed"]), 0)
    with pytest.raises(ModelError, match=r"model.adapter: .* is an adapter already"):
        policy_start(
            load(str(recipe), [f"model.name={trained[0]}", "model.adapter={rank: 2}"]).recipe, weights=True
        )
    other = write_model(tmp_path / "other", hidden_size=16)
    with pytest.raises(ModelError, match=r"the adapter cannot be loaded|do not fit its base"):
        continue_adapter(load_model(other, 300), trained[0] / "model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_four_bits_are_for_frozen_weights_on_a_gpu(recipe: Path) -> None:
    with pytest.raises(ModelError, match=r"model.quantize: quantised weights cannot be trained"):
        policy_start(load(str(recipe), ["model.quantize=nf4"]).recipe, weights=True)
    with pytest.raises(ModelError, match=r"model.quantize: nf4 needs a CUDA GPU"):
        load_model(recipe.parent / "tiny", 300, quantize="nf4")


def test_a_learning_rate_for_all_weights_is_pointed_out(recipe: Path) -> None:
    low = load(str(recipe), ["model.adapter={rank: 2}", "optim.lr=5e-7"]).recipe
    usual = load(str(recipe), ["model.adapter={rank: 2}", "optim.lr=1e-4"]).recipe
    start = policy_start(low, weights=True)

    assert "optim.lr=5e-06" in advice(low, start)[0]
    assert advice(usual, start) == []


def test_a_frozen_backbone_of_a_reward_model_is_its_base(tmp_path: Path) -> None:
    model = load_reward_model(write_model(tmp_path), 300)
    attach(model, Adapter(rank=2), 0)

    assert "score.weight" in dict(base_parameters(model))
