"""Rows and ids that a model cannot take are found in its folder, before a weight is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from dpo_cli.errors import ModelError
from dpo_cli.modeling.limits import check_limits
from dpo_cli.types import TokenGroup
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl, write_model


def group(n_prompt: int, *lengths: int, source: str = "rows.jsonl:1") -> TokenGroup:
    ids = [np.full(n, 7, np.int32) for n in (n_prompt, *lengths)]
    return TokenGroup(ids[0], tuple(ids[1:]), tuple(np.ones(n, bool) for n in lengths), source=source)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "gpt2"
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": len(tokenizer)}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "llama", max_position_embeddings=64)


def test_rows_beyond_learned_positions_are_an_error(gpt2: Path) -> None:
    groups = [group(30, 34), group(10, 5, 55, source="rows.jsonl:8"), group(40, 60, 3, source="rows.jsonl:9")]
    assert check_limits(gpt2, 10, groups[:1]) == []
    with pytest.raises(ModelError) as error:
        check_limits(gpt2, 10, groups)
    assert error.value.lines() == [
        "dpo: error[4] rows.jsonl:9: 2 of 3 rows are longer than the model's 64 positions, the longest 100 tokens."
        " Fix: data.max_length=64, or another model"
    ]


def test_learned_positions_are_known_where_the_weights_are_not_here(
    gpt2: Path, llama: Path, tmp_path: Path
) -> None:
    for folder, is_learned in ((gpt2, True), (llama, False)):
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        if is_learned:
            with pytest.raises(ModelError, match="longer than the model's 64 positions"):
                check_limits(tmp_path, 10, [group(60, 5)])
        else:
            assert len(check_limits(tmp_path, 10, [group(60, 5)])) == 1


def test_rows_beyond_rotary_positions_are_a_warning(llama: Path) -> None:
    (line,) = check_limits(llama, 10, [group(60, 4), group(60, 5)])
    assert "1 of 2 rows are longer than the model's 64 positions, the longest 65 tokens" in line
    assert line.endswith("data.max_length=64")


def test_both_problems_are_named_at_once(gpt2: Path) -> None:
    with pytest.raises(ModelError) as error:
        check_limits(gpt2, 10_000, [group(60, 60)])
    ids, positions = error.value.problems
    assert "the tokenizer has 10000 ids, the embedding" in ids.what
    assert "resize the embedding" in ids.fix
    assert "64 positions" in positions.what


def test_a_folder_that_says_nothing_limits_nothing(tmp_path: Path) -> None:
    assert check_limits(tmp_path, 10_000, [group(9, 9)]) == []
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 5}}))
    with pytest.raises(ModelError, match="embedding 5 rows"):
        check_limits(tmp_path, 6, [])


def test_check_says_what_train_says(tmp_path: Path, gpt2: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", pair_rows(24))
    (tmp_path / "r.yaml").write_text(
        f"model: {{name: {gpt2}}}\ndata: {{train: [{{path: rows.jsonl}}], max_length: 1024}}\n"
        "train: {max_steps: 1, output_dir: runs}\n"
    )
    checked, trained = (dpo(tmp_path, command, "r.yaml") for command in ("check", "train"))
    assert checked.returncode == trained.returncode == 4
    said = [[line for line in done.stderr.splitlines() if "error[4]" in line] for done in (checked, trained)]
    assert said[0] == said[1]
    assert "longer than the model's 64 positions" in said[0][0]

    for command in ("check", "train"):
        fits = dpo(tmp_path, command, "r.yaml", "data.max_length=64", "data.split={eval: 0}")
        assert fits.returncode == 0, fits.stderr


def dpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpo_cli", *arguments]
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
