"""`dpo export`: whole folders that compute what the run's model computed."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import ModelError, StorageError
from dpo_cli.export.export import LOGITS, export
from dpo_cli.modeling.adapters import attach
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.recipe.schema import Adapter
from tests.fakes import write_model

IDS = torch.tensor([[1, 70, 80, 90, 100, 4]])


def write_adapter(folder: Path, base: Path, is_reward: bool = False, **settings: object) -> Path:
    """Write an adapter with weights that change the model."""
    model = load_reward_model(base, 300, 1) if is_reward else load_model(base, 300)
    attach(model, Adapter(rank=4, **settings), 0)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.1)
    model.peft_config["default"].base_model_name_or_path = str(base)  # type: ignore[index]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize(
    "settings",
    [{}, {"kind": "dora"}, {"targets": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}],
)
def test_a_merged_adapter_is_what_peft_computes(
    settings: dict[str, object], base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, **settings)
    done = export(str(adapter), "vllm", tmp_path / "merged", "fp32")
    plain = AutoModelForCausalLM.from_pretrained(base)
    bare = plain(IDS).logits
    theirs = PeftModel.from_pretrained(plain, adapter).eval()(IDS).logits
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(IDS).logits

    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - bare).abs().max() > 1e-2
    assert done.largest_logit <= LOGITS and done.n_ids > 50
    assert done.command == f"vllm serve {tmp_path / 'merged'} --dtype float32"
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_the_template_and_what_ends_answers_come_along(base: Path, tmp_path: Path) -> None:
    export(str(base), "merged", tmp_path / "out", "fp32")
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(base)

    assert ours.chat_template == theirs.chat_template
    stated = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert stated["eos_token_id"] == theirs.eos_token_id


def test_a_reward_models_adapter_is_merged_with_its_head(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, is_reward=True)
    export(str(adapter), "merged", tmp_path / "merged", "fp32")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")

    assert torch.equal(model.score.weight, load_reward_model(base, 300, 1).get_submodule("score").weight)
    with pytest.raises(ModelError, match="gives scores, not answers for lm-eval"):
        export(str(adapter), "lm-eval", tmp_path / "other", "fp32")


def test_bf16_is_written_as_such_and_its_cost_is_told(base: Path, tmp_path: Path) -> None:
    done = export(str(base), "gguf", tmp_path / "half", "bf16")

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert done.largest_logit > 0 and "--outtype bf16" in done.command


def test_nothing_is_overwritten_and_a_failed_export_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        export(str(base), "merged", tmp_path / "there", "fp32")

    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    monkeypatch.setattr("dpo_cli.export.export.LOGITS", -1.0)
    with pytest.raises(ModelError, match="logits differ"):
        export(str(copy), "merged", tmp_path / "new", "fp32")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "copy"}


def test_a_server_is_told_what_the_template_was_given_in_training(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run / "model")
    (run / "recipe.yaml").write_text(
        f"model: {{name: {base}}}\n"
        "data: {train: [{path: r.jsonl}], system: Be kind., merge_system: true, chat_template_kwargs: {enable_thinking: false}}\n"
    )
    done = export(str(run), "vllm", tmp_path / "out", "fp32")

    words = shlex.split(done.command)
    assert json.loads(words[words.index("--default-chat-template-kwargs") + 1]) == {"enable_thinking": False}
    assert '{"enable_thinking": false} in training' in done.note and '"Be kind."' in done.note
    assert "in front of the first user turn in training (data.merge_system)" in done.note


def test_the_command_says_what_was_checked_and_what_follows(base: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(base), "--to", "lm-eval", "--out", str(tmp_path / "out")])

    assert done.exit_code == 0, done.output
    assert "the same as in training" in done.output and "lm_eval --model hf" in done.output
