"""Evaluation of nothing or of next to nothing: clear text, and no interval where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_cli.cli.evaluate.eval import evaluate
from dpo_cli.errors import DataError
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.fakes import pair_rows, write_jsonl
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(write_recipe(tmp_path_factory.mktemp("run")), 1)


def test_fault_068_one_row_gets_figures_and_no_interval(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "one.jsonl", pair_rows(1))
    evaluate(str(run), [f"data.eval=[{{path: {path}}}]"], out=tmp_path / "a", split="eval", as_json=True)
    facts = json.loads(capsys.readouterr().out)
    evaluate(str(run), [f"data.eval=[{{path: {path}}}]"], out=tmp_path / "b", split="eval", as_json=False)
    first = capsys.readouterr().out.splitlines()[0]

    assert facts["n"] == 1 and facts["ci"] is None and facts["margin_ci"] is None
    assert "n=1 over 1 prompts" in first and "[" not in first


def test_fault_068_rows_of_one_prompt_have_no_interval(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "prompt": "Well?"} for row in pair_rows(4)]
    path = write_jsonl(tmp_path / "same.jsonl", rows)
    evaluate(str(run), [f"data.eval=[{{path: {path}}}]"], out=tmp_path / "a", split="eval", as_json=True)

    assert json.loads(capsys.readouterr().out)["ci"] is None


def test_fault_068_no_row_is_told(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "none.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="0 usable rows"):
        evaluate(str(run), [f"data.eval=[{{path: {empty}}}]"], out=tmp_path, split="eval", as_json=True)
    with pytest.raises(DataError, match="no row is held out for 'test'"):
        evaluate(str(run), [], out=tmp_path, split="test", as_json=True)


@pytest.mark.slow
def test_fault_068_a_run_with_one_held_out_row_claims_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    held = write_jsonl(tmp_path / "one.jsonl", pair_rows(1, seed=5))
    settings = [f"data.eval=[{{path: {held}}}]", f"train.output_dir={tmp_path}/runs", "train.max_steps=1"]
    status = train(load(str(recipe), settings), "dpo train")
    told = capsys.readouterr().err

    assert status.eval is not None and (status.eval["n"], status.eval["ci"]) == (1, None)
    assert "acc_ci" not in told and "n=1" in told
