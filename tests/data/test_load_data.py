"""From a recipe's data group to the parts of a run: counts, splits, weights, leaks and the cache."""

from __future__ import annotations

import random
import re

import pytest

from dpo_cli.data.load import data_digest
from dpo_cli.data.tokenize import token_cache
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.errors import DataError, StorageError
from dpo_cli.recipe.schema import Source, Split
from tests.data.build import load_rows
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl

GOOD = {"prompt": "p", "chosen": "yes", "rejected": "no"}


def prompts(rows):
    return {row.example.prompt[0]["content"] for row in rows}


def test_rows_keep_their_order_and_places(tmp_path):
    data = load_rows(tmp_path, pair_rows(6))
    assert [group.source.rpartition(":")[2] for group in data.train] == list("123456")
    assert data.report.parts == {"train": 6, "eval": 0, "test": 0}


def test_fault_044_an_empty_file_is_no_usable_rows(tmp_path):
    with pytest.raises(DataError, match="0 usable rows") as error:
        load_rows(tmp_path, [])
    assert error.value.code == 3


def test_fault_044_no_usable_rows_tells_the_counts_by_reason(tmp_path):
    rows = [{**GOOD, "chosen": " "}, {**GOOD, "prompt": "x" * 90}, {**GOOD, "prompt": "y" * 90}]
    with pytest.raises(DataError) as error:
        load_rows(tmp_path, rows, max_length=60)
    assert "0 usable rows of 3 (empty completion: 1, prompt >= data.max_length: 2)" in str(error.value)


def test_fault_051_identical_completions_are_dropped_and_counted(tmp_path):
    report = load_rows(tmp_path, [*pair_rows(3), {**GOOD, "rejected": "yes"}]).report
    assert (report.sources[0].kept, report.sources[0].dropped) == (3, {"identical completions": 1})


def test_fault_051_mostly_identical_completions_stop_the_run(tmp_path):
    with pytest.raises(DataError, match="2 of 3 rows have identical completions"):
        load_rows(tmp_path, [GOOD, {**GOOD, "rejected": "yes"}, {**GOOD, "rejected": "yes", "prompt": "z"}])


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000"])
def test_fault_052_blank_completions_are_dropped_and_counted(tmp_path, blank):
    report = load_rows(tmp_path, [*pair_rows(3), {**GOOD, "rejected": blank}]).report
    assert (report.sources[0].kept, report.sources[0].dropped) == (3, {"empty completion": 1})


def test_fault_053_held_out_prompts_that_are_trained_on_are_counted_or_refused(tmp_path):
    held_out = write_jsonl(tmp_path / "eval.jsonl", [*pair_rows(2), {**GOOD, "prompt": "new"}])
    data = load_rows(tmp_path, pair_rows(5), eval=[Source(path=str(held_out))])
    assert data.report.leaked == 2
    assert "2 held-out rows share a prompt with the training rows" in data.report.warnings()
    with pytest.raises(DataError, match="2 held-out rows share a prompt"):
        load_rows(tmp_path, pair_rows(5), eval=[Source(path=str(held_out))], fail_on_leak=True)


def test_fault_054_both_orders_of_a_pair_are_counted(tmp_path):
    opposite = {"prompt": "p", "chosen": "no", "rejected": "yes"}
    report = load_rows(tmp_path, [GOOD, opposite, *pair_rows(3)]).report
    assert report.contradictions == 1
    assert any("in both orders" in warning for warning in report.warnings())


def test_fault_061_broken_eval_rows_are_found_with_the_training_rows(tmp_path):
    held_out = write_jsonl(tmp_path / "eval.jsonl", [GOOD, {**GOOD, "chosen": 3}])
    with pytest.raises(DataError) as error:
        load_rows(tmp_path, [GOOD, {**GOOD, "chosen": None}], eval=[Source(path=str(held_out))])
    assert [problem.where.rpartition("/")[2] for problem in error.value.problems] == [
        "train.jsonl:2",
        "eval.jsonl:2",
    ]


def test_no_prompt_is_in_two_parts(tmp_path):
    rows = [{**row, "prompt": f"prompt {i % 30}"} for i, row in enumerate(pair_rows(90))]
    data = load_rows(tmp_path, rows, split=Split(eval=0.3, test=0.2))
    parts = [prompts(rows) for rows in (data.train_rows, data.eval_rows, data.test_rows)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30


def test_split_is_fixed_under_growth_and_order_and_moves_with_its_seed(tmp_path):
    rows = pair_rows(200)
    split = Split(eval=0.2, test=0.1)
    small = load_rows(tmp_path, rows[:100], split=split)
    shuffled = random.Random(1).sample(rows, len(rows))
    large = load_rows(tmp_path, shuffled, split=split)
    assert prompts(small.eval_rows) < prompts(large.eval_rows)
    assert prompts(small.test_rows) < prompts(large.test_rows)
    assert prompts(small.train_rows) < prompts(large.train_rows)
    other = load_rows(tmp_path, rows, split=Split(eval=0.2, test=0.1, seed=1))
    assert prompts(other.eval_rows) != prompts(large.eval_rows)


def test_a_share_that_holds_out_nothing_is_told_with_a_seed_that_does(tmp_path):
    rows = [{**row, "prompt": f"prompt {i % 3}"} for i, row in enumerate(pair_rows(30))]
    data = load_rows(tmp_path, rows, split=Split(eval=0.1))
    warning = data.report.warnings()[0]
    assert "data.split.eval=0.1 holds out no row: 3 different prompts" in warning
    seed = int(re.search(r"data\.split\.seed=(\d+) ", warning)[1])
    other = load_rows(tmp_path, rows, split=Split(eval=0.1, seed=seed))
    assert len(other.eval_rows) == 10 and not other.report.dealt
    single = load_rows(tmp_path, [{**row, "prompt": "prompt 0"} for row in rows], split=Split(eval=0.1))
    assert single.report.warnings()[0].endswith("; name a file in data.eval")
    assert not load_rows(tmp_path, rows, split=Split(eval=0.0)).report.dealt


def test_eval_sources_replace_the_eval_share_but_not_the_test_share(tmp_path):
    held_out = write_jsonl(tmp_path / "eval.jsonl", [GOOD])
    data = load_rows(
        tmp_path, pair_rows(100), split=Split(eval=0.5, test=0.2), eval=[Source(path=str(held_out))]
    )
    assert len(data.eval_rows) == 1
    assert len(data.train) + len(data.test) == 100
    assert len(data.test) > 5


@pytest.mark.parametrize(("weight", "low", "high"), [(2.0, 200, 200), (0.5, 35, 65), (1.25, 110, 140)])
def test_weight_is_the_number_of_passes(tmp_path, weight, low, high):
    data = load_rows(tmp_path, pair_rows(100), source={"weight": weight})
    assert low <= len(data.train) <= high
    again = load_rows(tmp_path, pair_rows(100), source={"weight": weight})
    assert data_digest(data.train) == data_digest(again.train)


def test_longer_wins_counts_ties_half(tmp_path):
    rows = [GOOD, {**GOOD, "prompt": "2", "chosen": "n"}, {**GOOD, "prompt": "3", "chosen": "ja"}]
    assert load_rows(tmp_path, rows).report.sources[0].longer_wins == pytest.approx(0.5)


def test_report_speaks_of_truncation_and_boundaries(tmp_path):
    data = load_rows(tmp_path, [{**GOOD, "chosen": "y" * 99}], max_length=60)
    told = "\n".join(data.report.lines())
    assert f"1 row truncated to data.max_length (first: {tmp_path}/train.jsonl:1)" in told
    assert "1 row lost an end token to truncation" in told
    assert data.report.as_dict()["sources"][0]["notes"]["truncated to data.max_length"] == 1


def test_second_load_takes_tokens_from_the_cache(tmp_path, monkeypatch):
    rows = [*pair_rows(20), {**GOOD, "prompt": "x" * 99}, {**GOOD, "chosen": "y" * 99}]
    first = load_rows(tmp_path, rows, max_length=90)
    monkeypatch.setattr(Encoder, "encode", None)
    second = load_rows(tmp_path, rows, max_length=90)
    assert data_digest(first.train) == data_digest(second.train)
    assert [group.source for group in first.train] == [group.source for group in second.train]
    assert first.report == second.report


@pytest.mark.parametrize("change", ["row", "template", "max_length", "system"])
def test_cache_is_keyed_by_everything_that_decides_the_tokens(tmp_path, change):
    tokenizer, rows, fields = byte_tokenizer(), pair_rows(3), {}
    load_rows(tmp_path, rows, tokenizer=tokenizer)
    if change == "row":
        rows[1]["chosen"] += "!"
    elif change == "template":
        tokenizer.chat_template = " " + tokenizer.chat_template
    else:
        fields = {"max_length": 200} if change == "max_length" else {"system": "s"}
    load_rows(tmp_path, rows, tokenizer=tokenizer, **fields)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[:200] + b"\x7f" + raw[201:]]
)
def test_damaged_cache_is_made_anew(tmp_path, damage):
    first = load_rows(tmp_path, pair_rows(5))
    (stored,) = (tmp_path / "cache").iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(damage(whole))
    assert data_digest(load_rows(tmp_path, pair_rows(5)).train) == data_digest(first.train)
    assert stored.read_bytes() == whole


def test_a_cache_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="tokenised rows cannot be stored"):
        load_rows(tmp_path, pair_rows(3), cache=str(tmp_path / "file" / "cache"))


def test_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert token_cache.default_folder() == tmp_path / "dpo-cli" / "tokens"


def test_digest_of_data_follows_order_and_content(tmp_path):
    train = load_rows(tmp_path, pair_rows(5)).train
    assert data_digest(train) == data_digest(list(train))
    assert len({data_digest(train), data_digest(train[::-1]), data_digest(train[:-1])}) == 3
