"""`dpo peek`: tokens with their part, and nothing that drives a terminal."""

from __future__ import annotations

import json

import pytest

from dpo_cli.cli.data.peek import ROWS_READ, peek
from dpo_cli.errors import DataError
from tests.fakes import CHAT_TEMPLATE, pair_rows, write_jsonl, write_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def recipe(tmp_path, model_dir):
    evil = {
        "prompt": "\x1b[31mred [bold]x[/bold] \u202e",
        "chosen": "\x1b]0;title\x07 ok é",
        "rejected": "no\r\n",
    }
    write_jsonl(tmp_path / "pairs.jsonl", [evil, *pair_rows(5)])
    path = tmp_path / "r.yaml"
    data = "{train: [{path: pairs.jsonl}], cache: cache, split: {eval: 0}}"
    path.write_text(f"model: {{name: {model_dir}}}\ndata: {data}\n")
    return path


def test_tokens_are_told_apart_and_named_by_part(recipe, capsys):
    peek(str(recipe), None, 1, "pairs.jsonl:2", False)
    told = capsys.readouterr().out
    assert told.count("row ") >= 1
    assert "    scored  | W│e│l│l" in told
    assert "│<|im_end|>" in told


def test_a_row_far_down_a_data_file_is_found(tmp_path, model_dir, capsys):
    path = write_jsonl(tmp_path / "far.jsonl", pair_rows(ROWS_READ + 9))
    peek(str(path), None, 1, f"far.jsonl:{ROWS_READ + 9}", False, str(model_dir))
    assert f"row {path}:{ROWS_READ + 9}\n" in capsys.readouterr().out


def test_a_ranking_is_shown_whole(recipe, capsys):
    write_jsonl(recipe.parent / "pairs.jsonl", [{"prompt": "q", "completions": ["good", "fair", "bad"]}])
    peek(str(recipe), ["method.name=plackett_luce", "data.train[0].format=ranking"], 1, None, False)
    told = capsys.readouterr().out
    assert told.index("place 1 of 3: ") < told.index("g│o│o│d") < told.index("f│a│i│r")
    assert told.index("place 3 of 3: ") < told.index("b│a│d")


def test_control_characters_and_markup_of_the_data_are_shown_not_obeyed(recipe, capsys):
    peek(str(recipe), None, 1, None, False)
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\x07" not in told and "\u202e" not in told and "\r" not in told
    assert "\\x1b│[│3│1│m" in told
    assert "[│b│o│l│d│]" in told
    assert "│é│" in told.replace("é<", "é│<")


def test_json_holds_ids_and_parts(recipe, capsys):
    peek(str(recipe), None, 2, None, True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 2
    assert {run["part"] for row in rows for completion in row["completions"] for run in completion} == {
        "scored"
    }


def test_each_row_comes_with_the_prompt_as_a_server_sends_it(recipe, tmp_path, capsys):
    template = (tmp_path / "t.jinja").absolute()
    template.write_text(CHAT_TEMPLATE.replace("assistant\n{%", "assistant\n{{ mood }}{%"))
    more = [f"model.chat_template={template}", "data.chat_template_kwargs={mood: calm}"]
    peek(str(recipe), more, 1, "pairs.jsonl:2", False)
    told = capsys.readouterr().out
    assert "tokens: <|im_start|>user\\n" in told and "assistant\\ncalm\n" in told
    assert "warning: the model is trained behind another prompt than the server's, which ends with" in told
    peek(str(recipe), more, 1, "pairs.jsonl:2", True)
    facts = json.loads(capsys.readouterr().out)["rows"][0]
    assert facts["serving_prompt"]["text"].endswith("assistant\ncalm")
    assert facts["serving_prompt"]["ids"][: len(facts["prompt"]["ids"])] == facts["prompt"]["ids"]


def test_a_row_that_is_not_used_is_told(recipe):
    with pytest.raises(DataError, match=r"no row of 'pairs\.jsonl:99' is used"):
        peek(str(recipe), None, 1, "pairs.jsonl:99", False)
