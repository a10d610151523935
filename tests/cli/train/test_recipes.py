import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import RecipeError
from dpo_cli.recipe.load import load


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ls_names_method_paper_data_and_purpose() -> None:
    text = run("recipes", "ls")
    assert "quickstart" in text
    assert "arXiv:2305.18290" in text
    assert "Anthropic/hh-rlhf" in text
    rows = {row["name"]: row for row in json.loads(run("recipes", "ls", "--json"))["recipes"]}
    assert {"quickstart", "smollm2_hh", "llama7b_hh", "smoke"} <= set(rows)
    assert rows["llama7b_hh"]["method"] == "dpo"


def test_ls_says_what_rows_a_method_takes_and_what_memory_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    (line,) = [line for line in run("recipes", "ls").splitlines() if line.startswith("llama7b_hh_kto ")]
    rows = {row["name"]: row for row in json.loads(run("recipes", "ls", "--json"))["recipes"]}

    assert re.split(r" {2,}", line)[1:] == [
        "kto",
        "labelled or pairs",
        "~104 GiB, 2 x 80 GB",
        "arXiv:2402.01306",
    ]
    assert rows["llama7b_hh_kto"]["data_kind"] == "labelled"
    assert rows["llama7b_hh_kto"]["memory"]["bytes"] == 16 * 7 * 10**9


def test_ls_stays_within_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = run("recipes", "ls")

    assert max(map(len, text.splitlines())) <= 60
    assert "~104 GiB, 2 x 80 GB; arXiv:2402.01306;" in text


def test_ls_imports_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dpo_cli.cli.app import app\n"
        "assert CliRunner().invoke(app, ['recipes', 'ls']).exit_code == 0\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_show_prints_one_json_object_with_overrides_applied() -> None:
    recipe = json.loads(run("recipes", "show", "quickstart", "optim.lr=3e-6", "--json"))
    assert recipe["optim"]["lr"] == 3e-6
    assert recipe["method"] | {"name": "dpo", "beta": 0.1, "loss": "sigmoid"} == recipe["method"]


def test_show_prints_a_recipe_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(run("recipes", "show", "smollm2_hh"))
    assert load(str(path)).digest == load("smollm2_hh").digest


def test_show_diff_names_default_and_origin() -> None:
    assert "train.seed = 3 (default 0)  [override]" in run(
        "recipes", "show", "quickstart", "train.seed=3", "--diff"
    )
    change = json.loads(run("recipes", "show", "quickstart", "train.seed=3", "--diff", "--json"))[
        "train.seed"
    ]
    assert (change["value"], change["default"], change["origin"]) == (3, 0, "override")


def test_cp_writes_a_working_copy_and_overwrites_only_when_forced(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    run("recipes", "cp", "quickstart", str(target))
    assert load(str(target)).digest == load("quickstart").digest
    target.write_text("mine")
    with pytest.raises(RecipeError, match="exists already"):
        run("recipes", "cp", "quickstart", str(target))
    assert target.read_text() == "mine"
    run("recipes", "cp", "quickstart", str(target), "--force")
    assert load(str(target)).digest == load("quickstart").digest
    run("recipes", "cp", "quickstart", str(tmp_path))
    assert (tmp_path / "quickstart.yaml").is_file()
    with pytest.raises(RecipeError, match="no such folder"):
        run("recipes", "cp", "quickstart", str(tmp_path / "none" / "x.yaml"))


def test_schema_and_explain_print_to_stdout() -> None:
    assert json.loads(run("recipes", "schema"))["title"] == "dpo recipe"
    assert "Peak learning rate" in run("explain", "optim.lr")
