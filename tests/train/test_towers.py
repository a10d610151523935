"""Text-only runs of checkpoints that read images: the language model learns, everything else comes back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from dpo_cli.engine.open_model import attach
from dpo_cli.errors import ModelError
from dpo_cli.export.export import export
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.modeling.sizes.size import model_size
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Adapter
from dpo_cli.train.run import train
from tests.fakes import byte_tokenizer
from tests.modeling.test_router_loss import groups
from tests.train.tiny_recipe import write_recipe

TEXT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 4,
}
SIGHT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def gemma3() -> hf.PreTrainedModel:
    text = {**TEXT, "head_dim": 8, "sliding_window": 64}
    ids = {"image_token_index": 299, "boi_token_index": 298, "eoi_token_index": 297}
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(text_config=text, vision_config=SIGHT, mm_tokens_per_image=4, **ids)
    )


def llava() -> hf.PreTrainedModel:
    sight = hf.CLIPVisionConfig(**{**SIGHT, "num_hidden_layers": 2}, projection_dim=16)
    config = hf.LlavaConfig(text_config=hf.LlamaConfig(**TEXT), vision_config=sight, image_token_index=299)
    return hf.LlavaForConditionalGeneration(config)


def qwen2_vl() -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    sight = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    ids = {
        "image_token_id": 299,
        "video_token_id": 298,
        "vision_start_token_id": 297,
        "vision_end_token_id": 296,
    }
    return hf.Qwen2VLForConditionalGeneration(
        hf.Qwen2VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=sight, **ids)
    )


MODELS = {"gemma3": gemma3, "llava": llava, "qwen2-vl": qwen2_vl}
SEES = ("vision_tower", "visual", "multi_modal_projector")


def write(folder: Path, build: Callable[[], hf.PreTrainedModel]) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().float()
    model.generation_config = hf.GenerationConfig(eos_token_id=4, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_size": 28}))
    return folder


@pytest.mark.parametrize(
    "name", ["llava", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3", "qwen2-vl"))]
)
def test_a_text_run_saves_the_whole_checkpoint_with_its_other_towers_untouched(
    name: str, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path)
    start = write(tmp_path / "seeing", MODELS[name])
    settings = [f"model.name={start}", "train.max_steps=2", "train.samples=1", "train.save_every=0"]
    places = [f"train.output_dir={tmp_path}/runs", f"reference.store={tmp_path}/store"]
    run = Path(train(load(str(recipe), [*settings, *places]), "dpo train tiny.yaml").run_dir)

    before, after = load_file(start / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    seen = [key for key in before if any(part in key for part in SEES)]
    assert seen and all(torch.equal(before[key], after[key]) for key in seen)
    learnt = [key for key in before if key not in seen]
    assert all(not torch.equal(before[key], after[key]) for key in learnt)
    stated = [json.loads((folder / "config.json").read_text()) for folder in (start, run / "model")]
    assert stated[0]["architectures"] == stated[1]["architectures"]
    assert (run / "model" / "preprocessor_config.json").is_file()
    again, told = hf.AutoModelForImageTextToText.from_pretrained(run / "model", output_loading_info=True)
    assert type(again).__name__ == stated[0]["architectures"][0]
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert '"path": "packed"' in (run / "choices.json").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_packed_text_gives_the_whole_models_own_log_probs_in_training_too(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / name, MODELS[name])
    model = load_model(folder, 261)
    own = []
    for group in groups():
        for ids in group.completions:
            row = torch.tensor([[*group.prompt.tolist(), *ids.tolist()]])
            log_p = model(input_ids=row, use_cache=False).logits[0].float().log_softmax(-1)
            at = torch.arange(len(group.prompt), row.shape[1])
            own.append(log_p[at - 1, row[0, at]].sum())
    scorer = Scorer(model).train()
    found = score(scorer, scorer.layout(groups()))

    torch.testing.assert_close(found.total, torch.stack(own), atol=1e-4, rtol=0)
    assert model_size(folder).weights == model.num_parameters()


def test_an_adapter_goes_beside_the_language_model_alone(tmp_path: Path) -> None:
    for targets in ("all-linear", ["q_proj", "v_proj"]):
        model = load_model(write(tmp_path / "llava", llava), 261)
        attach(model, Adapter(rank=2, targets=targets), 0)
        trained = [key for key, weight in model.named_parameters() if weight.requires_grad]
        assert trained and all(".language_model." in key for key in trained)


def test_a_reward_model_of_it_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "gemma3", gemma3)
    with pytest.raises(ModelError, match="reads images too, and its class has no scalar head"):
        load_reward_model(folder, 261)


def test_it_is_exported_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "llava", llava)
    done = export(str(folder), "merged", tmp_path / "out", "fp32")
    before, after = load_file(folder / "model.safetensors"), load_file(done.folder / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert (done.folder / "preprocessor_config.json").is_file()
