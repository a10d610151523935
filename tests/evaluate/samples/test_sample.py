"""`dpo sample` of tiny models: its log-probs beside plain transformers', and going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.engine import generate
from dpo_cli.errors import DataError, ModelError, RecipeError, StorageError
from dpo_cli.evaluate.samples import sample as module
from dpo_cli.evaluate.samples.samples_file import read_samples, write_rows
from dpo_cli.modeling.load import load_reward_model
from tests.evaluate.sampled import sampled
from tests.fakes import byte_tokenizer, tiny_llama, write_jsonl, write_model
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe

SHORT = ("--max-new-tokens", "6", "--limit", "3")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(write_recipe(tmp_path_factory.mktemp("sample")), 1)


def told(*arguments: Any) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["sample", *map(str, arguments), "--json"])
    if done.exception is not None:
        raise done.exception
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_answer_the_held_out_prompts_and_the_kl_is_that_of_plain_transformers(
    run: Path, tmp_path: Path
) -> None:
    facts = told(run, "--n", 2, "--temperature", "0,1", *SHORT, "--out", tmp_path / "s.jsonl")
    rows, tokenizer = rows_of(tmp_path / "s.jsonl"), byte_tokenizer()

    assert [(row["temperature"], row["k"]) for row in rows] == [(0.0, 0), (1.0, 0), (1.0, 1)] * 3
    for row in rows:
        asked = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        answer = row["policy"]["ids"]
        for name, model in (("logp", tiny_llama(1)), ("ref_logp", tiny_llama(0))):
            with torch.no_grad():
                logps = model(torch.tensor([asked + answer])).logits[0].log_softmax(-1)
            plain = sum(float(logps[len(asked) + i - 1, token]) for i, token in enumerate(answer))
            assert row["policy"][name] == pytest.approx(plain, abs=1e-3)
        assert row["chosen"].startswith("Well, ") and row["policy"]["digest"] != row["reference"]["digest"]
    counts = [(each["role"], each["temperature"], each["n"]) for each in facts["figures"]]
    assert counts == [("policy", 0, 3), ("reference", 0, 3), ("policy", 1, 6), ("reference", 1, 6)]
    ratios = [row["policy"]["logp"] - row["policy"]["ref_logp"] for row in rows if row["temperature"] == 1]
    kl = facts["figures"][2]
    assert kl["is_kl"] and kl["log_ratio"]["mean"] == pytest.approx(sum(ratios) / 6)


def test_equal_models_say_the_same_and_are_no_nat_apart(run: Path, tmp_path: Path) -> None:
    folder = run / "model"
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"prompt": "Tea?"}, {"prompt": "Rain?", "chosen": "Yes."}])
    options = ["--reference", folder, "--data", asked, *SHORT, "--out", tmp_path / "s.jsonl"]
    kl = told(folder, *options)["figures"][0]["log_ratio"]
    rows = rows_of(tmp_path / "s.jsonl")

    assert all(row["policy"]["ids"] == row["reference"]["ids"] for row in rows)
    assert kl["mean"] == kl["per_token"] == 0.0
    assert [row["chosen"] for row in rows] == [None, "Yes."]


@pytest.mark.slow
def test_what_a_killed_run_said_is_kept_and_the_rest_is_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "MAX_ROWS", 1)
    with pytest.raises(RecipeError, match="is a run"):
        told(run, *SHORT, "--out", tmp_path / "whole.jsonl", "optim.lr=1")
    told(run, *SHORT, "--out", tmp_path / "whole.jsonl")
    real, asked = module.generate, list[int]()

    def dying(model: Any, asks: Any, *rest: Any, **options: Any) -> Iterator[Any]:
        asked.append(len(asks))
        for n, batch in enumerate(real(model, asks, *rest, **options)):
            if len(asked) == 2 and n == 1:
                raise InterruptedError
            yield batch

    monkeypatch.setattr(module, "generate", dying)
    monkeypatch.setattr(module, "COMMIT_EVERY_S", 0.0)
    with pytest.raises(InterruptedError):
        told(run, *SHORT, "--out", tmp_path / "s.jsonl")
    told(run, *SHORT, "--out", tmp_path / "s.jsonl")

    assert asked == [3, 3, 2], "three by the policy, of the reference's three one before the end"
    assert rows_of(tmp_path / "s.jsonl") == rows_of(tmp_path / "whole.jsonl")
    told(run, *SHORT, "--out", tmp_path / "s.jsonl", "--n", 2)
    assert asked == [3, 3, 2, 3, 3], "only what is new"


def test_a_file_of_other_settings_or_another_model_is_left_alone(run: Path, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "m", seed=5), tmp_path / "s.jsonl"
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"prompt": "Tea?"}])
    options = ["--reference", "none", "--data", asked, *SHORT, "--out", out]
    assert told(model, *options)["figures"][0]["log_ratio"] is None
    before = out.read_bytes()
    with pytest.raises(StorageError, match="made with seed 0, not 1"):
        told(model, *options, "--seed", 1)
    with pytest.raises(StorageError, match="which is not what"):
        told(run / "model", *options)
    write_model(model, seed=6)
    with pytest.raises(StorageError, match="which is not what"):
        told(model, *options)

    assert out.read_bytes() == before


def test_what_cannot_be_sampled_is_refused_before_anything_is_loaded(run: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    rows: list[dict[str, Any]] = [{"prompt": 3}, {"question": "a"}, {"prompt": "a", "chosen": 4}]
    bad = write_jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError, match=r"bad.jsonl:1: (.|\n)*bad.jsonl:2: (.|\n)*bad.jsonl:3: "):
        told(model, "--reference", "none", "--data", bad)
    with pytest.raises(RecipeError, match="comes without a reference"):
        told(model, "--data", bad)
    with pytest.raises(RecipeError, match="comes without rows"):
        told(model, "--reference", "none")
    with pytest.raises(RecipeError, match="no list of numbers"):
        told(model, "--reference", "none", "--temperature", "0,x")
    long = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "word " * 300}])
    with pytest.raises(DataError, match=r"none of 1 prompts can be asked: 1 prompts left out: "):
        told(model, "--reference", "none", "--data", long)
    fits = write_jsonl(tmp_path / "fits.jsonl", [{"prompt": "word"}])
    with pytest.raises(DataError, match="1 prompts left out: more than 6 tokens"):
        told(model, "--reference", "none", "--data", fits, "--max-new-tokens", 4090)
    reward = load_reward_model(model, 300)
    reward.save_pretrained(tmp_path / "reward")
    byte_tokenizer().save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match="gives scores, not answers"):
        told(tmp_path / "reward", "--reference", "none", "--data", long)


def test_the_table_shows_both_and_says_the_kl(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["sample", str(run), *SHORT, "--out", str(tmp_path / "s.jsonl")])

    assert done.exit_code == 0, done.output
    assert "KL(policy || reference)" in done.stdout and "nats an answer" in done.stdout
    assert done.stdout.count("\npolicy ") == 4 and done.stdout.count("\nreference ") == 4
    assert "the first 3 of" in done.stderr


def test_a_nul_that_a_model_says_can_be_read_back(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("a\0b", add_special_tokens=False)["input_ids"]
    write_rows(
        [sampled("Tea?", "") | {"policy": module._answer(ids, tokenizer, [4], "m", "d")}], tmp_path / "s"
    )

    assert read_samples(tmp_path / "s")[0]["policy"]["text"] == "a\ufffdb"


@pytest.mark.slow
def test_a_model_is_trained_on_what_a_judge_prefers_of_its_own_answers(run: Path, tmp_path: Path) -> None:
    model, samples, pairs = run / "model", tmp_path / "s.jsonl", tmp_path / "pairs.jsonl"
    told(run, "--n", 3, "--limit", 8, "--max-new-tokens", 6, "--out", samples)
    for command in (
        ["judge", samples, "--judge", "longer"],
        ["pairs", samples, "--judge", "longer", "--take", "all", "--out", pairs],
        ["init", pairs, "--model", model, "--out", tmp_path / "own.yaml"],
        ["train", tmp_path / "own.yaml", "train.max_steps=2", f"train.output_dir={tmp_path}/runs"],
    ):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code == 0, (command, done.output, done.exception)

    (trained,) = (tmp_path / "runs").iterdir()
    assert json.loads((trained / "status.json").read_text())["state"] == "finished"
