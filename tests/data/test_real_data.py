"""Real preference sets and the real tokenizer, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Model, Source
from dpo_cli.types import DataKind, DataNeeds
from tests.data.build import chat, config, encode_one, full_ids
from tests.fakes import byte_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("DPO_SHARED_DATA", ROOT / ".." / "shared" / "data"))
SMOLLM = ROOT / "models" / "SmolLM2-135M-Instruct"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data in {SHARED}")]


def load(tmp_path, name, tokenizer=None, kind: DataKind = "pairs", **source):
    data = config(train=[Source(path=str(SHARED / name), **source)], cache=str(tmp_path), max_length=2048)
    return load_data(data, tokenizer or byte_tokenizer(), DataNeeds(kind))


@pytest.mark.parametrize(
    ("name", "layout", "rows", "dropped"),
    [
        ("hh_helpful_base_dev.jsonl", "pairs", 1600, {"empty completion", "prompts differ"}),
        ("hh_helpful_base_dev_messages.jsonl", "pairs", 1584, set()),
        ("polite_style_900.jsonl", "pairs", 900, {"identical completions"}),
        ("ultrafeedback_400.jsonl", "pairs", 400, {"identical completions"}),
        ("kto_en_300.jsonl", "labelled", 300, set()),
        ("orca_dpo_openai_format_284.jsonl", "pairs", 284, set()),
        ("sharegpt_dpo_en_300.json", "pairs", 300, set()),
    ],
)
def test_every_row_is_kept_or_counted(tmp_path, name, layout, rows, dropped):
    data = load(tmp_path, name, kind="labelled")
    (source,) = data.report.sources
    assert (source.format, source.rows) == (layout, rows)
    assert set(source.dropped) - {"prompt >= data.max_length", "same after truncation"} == dropped
    assert source.kept + sum(source.dropped.values()) == rows
    assert all(min(group.scored) >= 1 for group in [*data.train, *data.eval])


def test_reviews_with_a_label_are_not_taken_for_plain_text(tmp_path):
    with pytest.raises(
        DataError, match=r"no format fits the rows.*found \['id', 'label', 'rating', 'text'\]"
    ):
        load(tmp_path, "imdb_train_4000.jsonl.gz")


def test_ultrafeedback_states_margins(tmp_path):
    smallest, median, largest = load(tmp_path, "ultrafeedback_400.jsonl").report.sources[0].margins
    assert smallest == 0 < median < 2 < largest


def test_longer_wins_on_hh_is_what_its_readme_says(tmp_path):
    assert load(tmp_path, "hh_helpful_base_dev.jsonl").report.sources[0].longer_wins == pytest.approx(
        0.61, abs=0.02
    )


@pytest.mark.skipif(not SMOLLM.is_dir(), reason="no real tokenizer: run `make setup demo`")
def test_real_template_gives_the_ids_of_the_library(tmp_path):
    tokenizer = load_tokenizer(Model(name=str(SMOLLM)))
    data = load(tmp_path, "hh_helpful_base_dev_messages.jsonl", tokenizer, limit=100)
    for row in data.train_rows:
        for k, completion in enumerate(row.example.completions):
            messages = [*row.example.prompt, *completion]
            whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
            assert [*row.group.prompt.tolist(), *row.group.completions[k].tolist()] == whole[:-1]
            assert whole[-2] == tokenizer.eos_token_id


@pytest.mark.skipif(not SMOLLM.is_dir(), reason="no real tokenizer: run `make setup demo`")
@pytest.mark.parametrize("special", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
def test_fault_057_real_control_tokens_in_content_stay_text(special):
    tokenizer = load_tokenizer(Model(name=str(SMOLLM)))
    encoded = encode_one(chat("q", f"a {special} b", "c"), tokenizer)
    clean = encode_one(chat("q", "a b", "c"), tokenizer)
    control = set(tokenizer.all_special_ids)
    assert [i for i in full_ids(encoded, 0) if i in control] == [
        i for i in full_ids(clean, 0) if i in control
    ]
    assert f"a {special} b" in tokenizer.decode(full_ids(encoded, 0))
