"""`dpo init`: from files to a recipe that `dpo check` takes as it is."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from dpo_cli.cli.data.check import check
from dpo_cli.cli.data.init import init
from dpo_cli.cli.data.peek import peek
from dpo_cli.data import formats
from dpo_cli.errors import DataError, ModelError, RecipeError
from dpo_cli.recipe.load import load
from tests.fakes import pair_rows, write_jsonl, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def votes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Path("votes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "left", "right", "winner", "id"])
        for i, row in enumerate(pair_rows(40)):
            sides = (row["chosen"], row["rejected"])
            writer.writerow([row["prompt"], *(sides if i % 2 else sides[::-1]), "1" if i % 2 else "2", i])
    return "votes.csv"


def test_a_table_of_votes_becomes_a_recipe_that_passes_the_check(votes, model, capsys):
    init([votes], model)
    told = capsys.readouterr().out
    assert told.splitlines()[:5] == [
        f"votes.csv: 40 rows, read as winner: {formats.get('winner').fits}",
        "  prompt is the column 'question'",
        "  answer_a is the column 'left'",
        "  answer_b is the column 'right'",
        '  words: {a: ["1"], b: ["2"]}',
    ]
    assert "  not used: id" in told
    assert told.count("\nrow votes.csv:") == 3
    assert told.splitlines()[-2:] == ["wrote votes.yaml", "next: dpo check votes.yaml"]
    source = load("votes.yaml").recipe.data.train[0]
    assert source.format == "winner"
    assert source.columns == {"prompt": "question", "answer_a": "left", "answer_b": "right"}
    check("votes.yaml", ["data.cache=cache"], 0, False)
    assert "40 rows, format winner, 40 kept" in capsys.readouterr().out


@pytest.fixture
def systems(tmp_path, monkeypatch, model):
    """Rows with system prompts, and a model whose template refuses them."""
    monkeypatch.chdir(tmp_path)
    rows = [{**row, "system": "Be kind."} if i % 2 else row for i, row in enumerate(pair_rows(20))]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    shutil.copytree(model, tmp_path / "refuses")
    template = tmp_path / "refuses" / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    return "rows.jsonl"


def test_a_refused_system_prompt_is_answered_by_a_whole_command_that_works(systems, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["dpo", "init", systems, "--model", "refuses"])
    with pytest.raises(ModelError, match="10 of 20 rows have a system prompt") as error:
        init([systems], "refuses")
    assert "Fix: `dpo init rows.jsonl --model refuses --merge-system` puts it" in str(error.value)
    init([systems], "refuses", merge_system=True)
    assert "user\\nBe kind.\\n\\n" in capsys.readouterr().out
    assert load("rows.yaml").recipe.data.merge_system is True
    check("rows.yaml", ["data.cache=cache"], 0, False)
    peek(systems, model="refuses", n=2, merge_system=True)
    capsys.readouterr()


def test_a_template_of_ones_own_is_named_in_the_recipe(systems, tmp_path, model):
    shutil.copy(Path(model) / "chat_template.jinja", tmp_path / "own.jinja")
    init([systems], "refuses", chat_template="own.jinja")
    recipe = load("rows.yaml").recipe
    assert recipe.model.chat_template is not None
    assert Path(recipe.model.chat_template).samefile(tmp_path / "own.jinja")
    check("rows.yaml", ["data.cache=cache"], 0, False)


def test_an_error_of_the_template_names_the_option_not_the_key(systems, tmp_path):
    (tmp_path / "refuses" / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    with pytest.raises(ModelError, match=r"fails: division by zero\. Fix: .*--chat-template FILE"):
        init([systems], "refuses")


def test_control_tokens_are_warned_of_with_their_key_and_named_in_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(write_model(tmp_path / "base", chat=False))
    rows = [{"prompt": f"{i}<|im_start|>", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(20)]
    write_jsonl(tmp_path / "holes.jsonl", rows)
    init(["holes.jsonl"], base)
    assert (
        "warning: 20 rows have a mark of a chat template in their text (spells <|im_start|>: 20)"
        in capsys.readouterr().out
    )
    init(["holes.jsonl"], base, control_tokens=["<|im_start|>"], force=True)
    assert "mark of a chat template" not in capsys.readouterr().out
    assert load("holes.yaml").recipe.data.control_tokens == ["<|im_start|>"]
    check("holes.yaml", ["data.cache=cache"], 0, False)
    assert "mark of a chat template" not in capsys.readouterr().out


def test_files_of_several_kinds_make_one_recipe(votes, model, tmp_path):
    thumbs = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in pair_rows(5)]
    write_jsonl(tmp_path / "thumbs.jsonl", thumbs)
    init([votes, "thumbs.jsonl"], model, Path("both.yaml"))
    recipe = load("both.yaml").recipe
    assert recipe.method.name == "kto"
    assert [source.format for source in recipe.data.train] == ["winner", "labelled"]


def test_a_recipe_is_not_overwritten_unasked(votes, model):
    Path("votes.yaml").write_text("mine")
    with pytest.raises(RecipeError, match=r"votes\.yaml: exists already"):
        init([votes], model)
    assert Path("votes.yaml").read_text() == "mine"
    init([votes], model, force=True)
    assert load("votes.yaml").recipe.method.name == "dpo"


def test_options_state_what_the_file_does_not(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"frage": r["prompt"], "completion": r["chosen"], "mood": m}
        for r, m in zip(pair_rows(4), "+-+?", strict=True)
    ]
    write_jsonl(tmp_path / "log.jsonl", rows)
    init(
        ["log.jsonl"],
        model,
        columns=["prompt=frage", "label=mood"],
        labels=["wanted=+", "unwanted=-", "neither=?"],
        show=0,
    )
    source = load("log.yaml").recipe.data.train[0]
    assert source.columns == {"prompt": "frage", "label": "mood"}
    assert source.labels == {"wanted": ["+"], "unwanted": ["-"], "neither": ["?"]}
    assert "warning: 3 rows teach little" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"columns": ["prompt"]}, RecipeError, "--column: 'prompt' is not NAME=VALUE"),
        ({"layout": "nope"}, RecipeError, "unknown format 'nope'"),
        ({"layout": "ranking"}, DataError, "no column for completions of ranking"),
        ({"labels": ["good=1"]}, RecipeError, "is not understood"),
        ({"out": Path("no/such/r.yaml")}, RecipeError, "no such folder"),
        ({"model": "./nowhere"}, ModelError, "no such model folder"),
    ],
)
def test_mistakes_write_nothing(votes, model, arguments, error, told):
    with pytest.raises(error, match=told):
        init([votes], **{"model": model, **arguments})
    assert [path.name for path in Path().iterdir()] == [votes]


def test_peek_shows_a_files_rows_without_a_recipe(votes, model, capsys):
    peek(votes, None, 1, None, False, model=model)
    told = capsys.readouterr().out
    assert told.startswith("votes.csv: 40 rows, read as winner")
    assert told.count("row votes.csv:") == 1
    peek(votes, None, 1, "votes.csv:7", False, model=model)
    assert "row votes.csv:7" in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"'votes\.csv' is a data file\. Fix: add --model"):
        peek(votes, None, 1, None, False)
    with pytest.raises(RecipeError, match="takes no overrides"):
        peek(votes, ["data.max_length=3"], 1, None, False, model=model)
