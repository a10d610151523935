"""`dpo check`: what it tells, and what it refuses."""

from __future__ import annotations

import json

import pytest
import typer

from dpo_cli.cli.data.check import check
from dpo_cli.errors import DataError, ModelError, RecipeError
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.fakes import byte_tokenizer, pair_rows, tiny_llama, write_jsonl, write_model
from tests.hub import SHA

PARAMETERS = tiny_llama().num_parameters()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def recipe(tmp_path, model_dir):
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(30))
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{name: {model_dir}}}\ndata: {{train: [{{path: pairs.jsonl}}], cache: cache}}\n")
    return path


def test_check_tells_format_prompt_and_scored_tokens_and_the_next_command(recipe, capsys):
    check(str(recipe), ["train.seed=1"], 1, False)
    told, errors = capsys.readouterr()
    assert "30 rows, format pairs, 30 kept" in told
    assert "\nmethod: dpo, loss sigmoid; rewards include beta" in told
    assert "serving prompt of the first row" in told
    assert "    prompt  | <|im_start|>user\\n" in told
    assert "    scored  | Well, " in told
    assert "\nmemory: 0.0378M parameters, all trained: under 0.1 GiB before activations, " in told
    assert "\nwhich method (rules of thumb, first choice first):\n  rows: 28 are very few" in told
    assert told.splitlines()[-2].startswith("OK: ")
    assert told.splitlines()[-1] == f"next: dpo train {recipe} train.seed=1"
    assert errors == ""


def test_check_is_not_ok_where_the_template_leaves_out_parts_of_rows(recipe, tmp_path, capsys):
    call = [{"type": "function", "function": {"name": "tide", "arguments": {"port": "Brest"}}}]
    rows = pair_rows(30)
    for row in rows:
        asked = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": "", "tool_calls": call},
        ]
        row["prompt"] = [*asked, {"role": "tool", "content": "high"}]
        row["chosen"], row["rejected"] = (
            [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")
        )
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(typer.Exit) as stopped:
        check(str(recipe), None, 1, False)
    assert stopped.value.exit_code == 9
    said = capsys.readouterr().out.splitlines()
    assert said[-3].startswith("NOT OK: the chat template leaves out parts of the rows")
    assert said[-2].startswith(
        "  30 rows with tool calls in their context that the template leaves out (first: "
    )
    assert said[-1].startswith("next: model.chat_template=PATH")
    with pytest.raises(typer.Exit):
        check(str(recipe), None, 1, True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] is False
    assert facts["warnings"][0].startswith("30 rows with tool calls")


def test_check_as_json_is_one_object(recipe, capsys):
    check(str(recipe), None, 2, True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] is True
    assert facts["method"] == "dpo"
    assert facts["form"].startswith("dpo, loss sigmoid;")
    assert [each["about"] for each in facts["advice"]][:3] == ["rows", "ipo", "dpo"]
    assert facts["memory"]["parameters"] == PARAMETERS
    assert facts["memory"]["free_bytes"] > facts["memory"]["bytes"]
    assert facts["data"]["parts"]["train"] + facts["data"]["parts"]["eval"] == 30
    assert len(facts["pairs"]) == 2
    assert facts["pairs"][0]["prompt"]["ids"] == facts["serving_prompt"]["ids"]
    assert facts["serving"]["answer_end"] == "<|im_end|>"


def test_check_counts_the_parameters_of_a_model_whose_weights_are_not_here(recipe, tmp_path, capsys):
    folder = write_model(tmp_path / "models--org--llama-7b" / "snapshots" / SHA)  # the hub's cache
    (folder / "model.safetensors").unlink()
    check(str(recipe), [f"model.name={folder}"], 0, True)
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert (memory["parameters"], memory["parameters_exact"]) == (PARAMETERS, True)


@pytest.mark.parametrize("key", ["model.name", "reference.model"])
def test_a_folder_whose_weights_cannot_be_read_is_refused_as_train_does(recipe, tmp_path, key):
    folder = write_model(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for command in (lambda *a: check(*a, 0, False), lambda *a: train(load(*a), "dpo train")):
        with pytest.raises(ModelError, match=r"no \*\.safetensors weights.*Fix: dpo convert"):
            command(str(recipe), [f"{key}={folder}", f"train.output_dir={tmp_path}/runs"])


def test_a_reference_with_another_vocabulary_is_refused(recipe, tmp_path):
    folder = write_model(tmp_path / "other", chat=False)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"reference\.model: the reference's vocabulary differs"):
        check(str(recipe), [f"reference.model={folder}"], 0, False)


def test_recipe_errors_come_before_data(tmp_path):
    (tmp_path / "r.yaml").write_text("model: {title: x}\n")
    with pytest.raises(RecipeError, match="title"):
        check(str(tmp_path / "r.yaml"), None, 1, False)


def test_broken_rows_are_told_with_their_lines(recipe):
    write_jsonl(recipe.parent / "pairs.jsonl", [{"prompt": "p", "chosen": "c"}, *pair_rows(2)])
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: \"rejected\" is absent"):
        check(str(recipe), None, 1, False)


def test_a_generation_config_that_contradicts_itself_is_found(recipe, tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": False, "temperature": 0.5, "eos_token_id": 4})
    )
    with pytest.raises(ModelError, match=r"generation_config\.json: .*temperature"):
        check(str(recipe), [f"model.name={folder}"], 0, False)


def test_a_server_that_would_run_on_is_warned_of(recipe, tmp_path, capsys):
    folder = write_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    check(str(recipe), [f"model.name={folder}"], 0, False)
    assert (
        "answers end with '<|im_end|>' in training, but generation stops at ['</s>']"
        in capsys.readouterr().out
    )
