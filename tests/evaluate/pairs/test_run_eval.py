"""`dpo eval` of tiny models: its figures beside plain transformers', and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_cli.cli.evaluate.eval import evaluate
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import DataError, ModelError, RecipeError
from dpo_cli.evaluate.pairs.pair_rows import read_rows
from dpo_cli.evaluate.pairs.run_eval import measure, set_names
from dpo_cli.recipe.load import load
from dpo_cli.reference.known_values import PIN, pinned_values
from dpo_cli.runs.target import subject_of
from tests.fakes import pair_rows, tiny_llama, write_jsonl, write_model
from tests.patience import starts
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe

FP32 = "train.precision=fp32"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_recipe(tmp_path_factory.mktemp("measure"))
    write_jsonl(path.parent / "a.jsonl", pair_rows(12, seed=1))
    write_jsonl(path.parent / "b.jsonl", pair_rows(8, seed=2))
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    return finished_run(recipe, 1)


def printed(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    evaluate(*arguments, as_json=True)
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def plain_logp(tokenizer: Any, model: Any, row: dict[str, str], answer: str) -> float:
    """Give a completion's summed log-prob as a script of ten lines would: one chat at a time, the model's own logits."""
    ask = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(
        [*ask, {"role": "assistant", "content": row[answer]}], return_dict=False
    )
    whole = whole[: -whole[::-1].index(tokenizer.eos_token_id) or None]
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(float(logits[i - 1, whole[i]]) for i in range(len(prompt), len(whole)))


def test_the_figures_are_those_of_plain_transformers(
    recipe: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (recipe.parent / "b.jsonl").read_text().splitlines()]
    facts = printed(capsys, str(run), [f"data.eval=[{{path: {recipe.parent}/b.jsonl}}]"])
    policy, reference = (
        (AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder))
        for folder in (run / "model", recipe.parent / "tiny")
    )
    margins = []
    for row in rows:
        chosen, rejected = (
            plain_logp(*policy, row, side) - plain_logp(*reference, row, side)
            for side in ("chosen", "rejected")
        )
        margins.append(0.1 * (chosen - rejected))

    assert facts["n"] == len(rows) and facts["ties"] == 0
    assert facts["margin"] == pytest.approx(np.mean(margins), abs=1e-3)
    assert facts["accuracy"] == np.mean(np.array(margins) > 0)


def test_a_run_is_measured_on_what_its_recipe_holds_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = printed(capsys, str(run))
    rows = read_rows(run / "eval" / "eval" / "pairs.parquet")
    kept = json.loads((run / "eval" / "eval" / "eval.json").read_text())

    assert facts["n"] == len(rows) == len(set(rows.key)) == 10
    assert all(":" in place and place.startswith("/") for place in rows.source)
    assert kept["accuracy"] == facts["accuracy"] == rows.correct.mean()
    assert facts["reference"] == str(run.parents[1] / "tiny")
    assert facts["ci"][0] < facts["accuracy"] < facts["ci"][1]
    assert set(facts["baselines"]) == {"longer_wins", "shorter_wins", "reference_sum", "reference_mean"}
    assert {"ece", "by_length", "length_matched", "drift", "margin_ci"} <= set(facts)
    assert facts["left_out"] is None


def test_named_sets_have_figures_of_their_own(
    recipe: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = f"data.eval=[{{path: {recipe.parent}/a.jsonl}}, {{path: {recipe.parent}/b.jsonl, weight: 3}}]"
    facts = printed(capsys, str(run), [two], "eval", tmp_path / "two")

    assert {name: each["n"] for name, each in facts["sets"].items()} == {"a": 12, "b": 8}
    assert facts["margin"] == pytest.approx(
        sum(each["n"] * each["margin"] for each in facts["sets"].values()) / 20
    )
    assert len(read_rows(tmp_path / "two" / "pairs.parquet")) == 20
    assert set_names(["x/a.jsonl", "y/a.jsonl", "b.json.gz"]) == {
        "x/a.jsonl": "x/a.jsonl",
        "y/a.jsonl": "y/a.jsonl",
        "b.json.gz": "b",
    }


def test_a_model_against_itself_has_only_ties(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, data = str(recipe.parent / "tiny"), f"data.eval=[{{path: {recipe.parent}/a.jsonl}}]"
    facts = printed(capsys, tiny, [data, f"reference.model={tiny}", FP32])

    assert (facts["n"], facts["ties"], facts["accuracy"]) == (12, 12, 0.5)
    assert abs(facts["margin"]) < 1e-5 and facts["ece"] == 0.0
    assert facts["ci"][0] < 0.5 < facts["ci"][1]
    assert facts["axis"]["log_ratio_accuracy"] == facts["axis"]["log_ratio_per_token_accuracy"] == 0.5


def test_a_model_needs_rows_and_a_named_reference(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, data = str(recipe.parent / "tiny"), f"data.eval=[{{path: {recipe.parent}/a.jsonl}}]"
    with pytest.raises(RecipeError, match=r"none is named.*reference.source=none"):
        evaluate(tiny, [data])
    with pytest.raises(RecipeError, match="without rows to measure on"):
        evaluate(tiny, [f"reference.model={tiny}"])
    with pytest.raises(RecipeError, match=r"did you mean 'data\.eval'"):
        evaluate(tiny, ["data.evl=[]"])
    facts = printed(capsys, tiny, [data, "reference.source=none", FP32])

    assert facts["what"] == "log-prob accuracy" and "no implicit reward" in facts["left_out"]
    assert facts["drift"] is facts["loss"] is facts["baselines"]["reference_sum"] is None
    assert facts["accuracy"] == facts["axis"]["log_prob_accuracy"]


def test_what_a_run_was_trained_on_stays_as_it_was(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.split.test: .*cannot be changed"):
        subject_of(str(run), ["data.split.test=0.5"])
    with pytest.raises(RecipeError, match=r"model.name: .*cannot be changed"):
        subject_of(str(run), ["model.name=org/other"])
    with pytest.raises(DataError, match="no row is held out for 'test'"):
        evaluate(str(run), [], "test")


def test_rows_that_cannot_be_measured_are_named_by_their_own_key(recipe: Path, run: Path) -> None:
    path = write_jsonl(recipe.parent / "alike.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "a"}])
    with pytest.raises(DataError, match=r"^data\.eval\[0\]\.path: .*data\.eval\[0\]\.columns"):
        evaluate(str(run), [f"data.eval=[{{path: {path}}}]"])
    path = write_jsonl(recipe.parent / "up.jsonl", [{"prompt": "p", "completion": "a", "label": True}] * 3)
    with pytest.raises(DataError, match=r"labelled .*measuring takes pairs .*Fix: data\.eval=\["):
        evaluate(str(finished_run(recipe, 8, "method.name=kto", f"data.train=[{{path: {path}}}]")))


def test_a_run_without_a_model_says_its_state(recipe: Path) -> None:
    unfinished = finished_run(recipe, 7)
    (unfinished / "model" / "config.json").unlink()
    with pytest.raises(ModelError, match="no model/ yet"):
        subject_of(str(unfinished))


def test_a_reward_model_is_recognised_and_an_untrained_head_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import LlamaForSequenceClassification

    folder = write_model(tmp_path / "judge")
    config = tiny_llama().config
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder)
    data = f"data.eval=[{{path: {recipe.parent}/a.jsonl}}]"
    facts = printed(capsys, str(folder), [data, FP32])

    assert (facts["method"], facts["reference"], facts["drift"]) == ("reward", None, None)
    assert "log_prob_margin" not in facts["axis"] and facts["n"] == 12
    with pytest.raises(ModelError, match="no reward head"):
        evaluate(str(recipe.parent / "tiny"), [data, "method.name=reward"])


def test_pinned_values_serve_without_the_reference(recipe: Path) -> None:
    from dpo_cli.train.run import train

    settings = [f"train.output_dir={recipe.parent}/pinned", "train.max_steps=1", "train.samples=0"]
    status = train(load(str(recipe), settings), "dpo train tiny.yaml")
    run, base = Path(status.run_dir), recipe.parent / "tiny"
    base.rename(recipe.parent / "gone")
    try:
        measured = measure(subject_of(str(run)), "eval", Runtime("fp32"))
    finally:
        (recipe.parent / "gone").rename(base)

    assert measured.facts["margin"] == pytest.approx(status.eval["margin"], abs=1e-6)
    assert measured.facts["accuracy"] == pytest.approx(status.eval["accuracy"])
    assert (run / PIN).is_dir() and pinned_values([], recipe.parent) is None


@pytest.mark.slow
def test_two_processes_count_every_pair_once(
    recipe: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = f"data.eval=[{{path: {recipe.parent}/a.jsonl, limit: 11}}]"
    alone = printed(capsys, str(run), [odd])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "dpo_cli", "eval", str(run), odd, "--json"],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=starts(250),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    both = json.loads(done.stdout)

    assert both["n"] == alone["n"] == 11
    assert both["margin"] == pytest.approx(alone["margin"], abs=1e-6)
    assert (both["accuracy"], both["ties"]) == (alone["accuracy"], alone["ties"])
