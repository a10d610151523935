"""`dpo audit`: exit codes, files and recipes, the clean set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from dpo_cli.cli.data.audit import FAULTS_FOUND, audit
from dpo_cli.cli.data.check import check
from dpo_cli.errors import DataError, RecipeError
from tests.data.build import read
from tests.fakes import pair_rows, write_jsonl, write_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = pair_rows(20)
    write_jsonl(tmp_path / "good.jsonl", rows)
    write_jsonl(tmp_path / "bad.jsonl", [*rows, rows[0], {**rows[1], "chosen": "same", "rejected": "same"}])
    return tmp_path


def test_a_clean_file_ends_well(folder, capsys):
    audit("good.jsonl")
    assert "0 faults in 20 rows" in capsys.readouterr().out


def test_faults_are_told_and_end_with_their_own_code(folder, capsys):
    with pytest.raises(typer.Exit) as ended:
        audit("bad.jsonl")
    assert ended.value.exit_code == FAULTS_FOUND == 9
    told = capsys.readouterr().out
    assert "1 rows repeat another (first: bad.jsonl:21 and bad.jsonl:1)" in told
    assert "1 rows dropped: identical completions (first: bad.jsonl:22)" in told
    assert told.splitlines()[-1] == "2 faults in 21 rows"
    audit("bad.jsonl", allow=2)


def test_json_is_one_object(folder, capsys):
    with pytest.raises(typer.Exit):
        audit("bad.jsonl", as_json=True, write=Path("clean.jsonl"))
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["faults"], facts["rows"]) == (False, 2, 21)
    assert {finding["name"] for finding in facts["findings"]} == {"duplicates", "identical"}


def test_the_clean_set_is_written_and_never_over_a_file(folder, capsys):
    with pytest.raises(typer.Exit):
        audit("bad.jsonl", write=Path("clean.jsonl"))
    assert "wrote clean.jsonl: 20 of 22 rows" in capsys.readouterr().out
    assert [row.values for row in read("clean.jsonl")] == [row.values for row in read("good.jsonl")]
    with pytest.raises(RecipeError, match=r"'good\.jsonl' exists already"):
        audit("bad.jsonl", write=Path("good.jsonl"))


def test_held_out_prompts_that_are_trained_on_are_found_and_cleaned(folder, capsys):
    write_jsonl(folder / "heldout.jsonl", [{**row, "chosen": "other"} for row in pair_rows(3)])
    with pytest.raises(typer.Exit):
        audit("good.jsonl", heldout="heldout.jsonl", write=Path("clean.jsonl"))
    told = capsys.readouterr().out
    assert (
        "3 held-out rows share a prompt with training rows (first: heldout.jsonl:1 and good.jsonl:1" in told
    )
    assert len(read("clean.jsonl")) == 17


def test_a_recipe_is_audited_with_its_tokens_and_the_check_says_the_same(folder, capsys):
    write_model(folder / "tiny")
    (folder / "tiny" / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    data = "{train: [{path: bad.jsonl}], split: {eval: 0}, cache: cache}"
    Path("r.yaml").write_text(f"model: {{name: ./tiny}}\ndata: {data}\n")
    with pytest.raises(typer.Exit):
        audit("r.yaml", ["data.max_length=60"], write=Path("clean.jsonl"))
    told = capsys.readouterr().out
    assert "rows dropped: identical completions" in told
    assert "rows dropped: same after truncation" in told
    assert "answers end with '<|im_end|>' in training, but generation stops at ['</s>']" in told
    check("r.yaml", None, 0, True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["audit"]["faults"] == 2
    assert any("1 rows repeat another" in warning for warning in facts["warnings"])


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"target": "good.jsonl", "overrides": ["train.seed=1"]}, RecipeError, "takes no overrides"),
        ({"target": "r.yaml", "heldout": "good.jsonl"}, RecipeError, "says itself what is held out"),
        ({"target": "none.csv"}, DataError, "no such file"),
    ],
)
def test_mistakes_are_told(folder, arguments, error, told):
    with pytest.raises(error, match=told):
        audit(**arguments)
