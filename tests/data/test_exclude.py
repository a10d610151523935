"""`data.drop`: training rows that are left out by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_cli.data.dataset import Data
from dpo_cli.data.load import load_data
from dpo_cli.data.split import pair_key
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Data as DataConfig
from dpo_cli.recipe.schema import Source, Split
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    path = write_jsonl(tmp_path / "rows.jsonl", pair_rows(40))
    return DataConfig(
        train=[Source(path=str(path), weight=2.0)], split=Split(eval=0.25), cache=str(tmp_path / "cache")
    )


def loaded(config: DataConfig, path: Path, keys: list[str]) -> Data:
    path.write_text("".join(json.dumps({"key": key, "why": "no reason"}) + "\n" for key in keys))
    return load_data(replace(config, drop=str(path)), byte_tokenizer())


def test_named_training_rows_are_left_out_and_counted(config: DataConfig, tmp_path: Path) -> None:
    before = load_data(config, byte_tokenizer())
    keys = list(dict.fromkeys(pair_key(row.example) for row in before.train_rows))
    held = [pair_key(row.example) for row in before.eval_rows]
    after = loaded(config, tmp_path / "drop.jsonl", [*keys[:3], *held[:2]])

    assert [pair_key(row.example) for row in after.train_rows] == [key for key in keys[3:] for _ in range(2)]
    assert [pair_key(row.example) for row in after.eval_rows] == held, "a held-out row is not picked"
    assert after.report.warnings()[0] == (
        "3 training rows left out: data.drop names them; 2 of its keys are no training row"
    )
    assert before.report.dealt == []


def test_a_file_of_other_data_is_refused(config: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names 1 rows, and none of them is a training row"):
        loaded(config, tmp_path / "drop.jsonl", ["nobody"])
    with pytest.raises(DataError, match="cannot be read"):
        load_data(replace(config, drop=str(tmp_path / "missing")), byte_tokenizer())


def test_lines_without_a_key_are_all_named(config: DataConfig, tmp_path: Path) -> None:
    path = tmp_path / "drop.jsonl"
    path.write_text('{"key": "a"}\nnonsense\n{"id": 3}\n')
    with pytest.raises(DataError) as caught:
        load_data(replace(config, drop=str(path)), byte_tokenizer())

    assert [problem.where for problem in caught.value.problems] == [f"{path}:2", f"{path}:3"]
