"""`dpo compare` and `dpo runs` on run folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.cli.evaluate.compare import _groups as groups_of
from dpo_cli.cli.evaluate.compare import compare
from dpo_cli.cli.train.runs import runs as list_runs
from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.evaluate.compare.inputs import names_of
from tests.fakes import pair_rows, write_jsonl
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def runs(recipe: Path) -> list[Path]:
    return [finished_run(recipe, seed) for seed in (1, 2)]


def test_runs_are_measured_once_and_compared(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(run) for run in runs]
    compare(names, out=tmp_path / "first", as_json=True)
    told, errors = capsys.readouterr()
    facts = json.loads(told)

    assert errors.count("measuring ") == 2
    assert (facts["n"], len(facts["runs"]), len(facts["pairs"])) == (10, 2, 1)
    assert facts["runs"][0]["cost"]["ms_per_step"] == 500.0 and facts["runs"][0]["cost"]["models_loaded"] == 1
    assert facts["recipe_diff"] == {
        "train.seed": {run.name: seed for run, seed in zip(runs, (1, 2), strict=True)}
    }
    assert facts["recipes"]["groups"][0]["runs"] == [run.name for run in runs]
    assert json.loads((tmp_path / "first" / "compare.json").read_text()) == facts

    compare(names, out=tmp_path / "second")
    told, errors = capsys.readouterr()
    assert "measuring" not in errors
    assert "reward accuracy, n = 10" in told and "not separable at n = 10" in told
    assert f"  train.seed: {1} | {2}" in told
    written = {path.name for path in (tmp_path / "second").iterdir()}
    assert {f"compare.{kind}" for kind in ("html", "svg", "json", "csv", "tex")} <= written

    newer = (runs[0] / "eval" / "eval" / "eval.json").stat().st_mtime + 10
    os.utime(runs[0] / "model" / "model.safetensors", (newer, newer))
    compare(names, out=tmp_path / "third")
    assert capsys.readouterr().err.count("measuring ") == 1


def test_runs_of_a_group_need_not_be_named_again(runs: list[Path], tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app, ["compare", "--group", f"all={runs[0]}, {runs[1]}", "--out", str(tmp_path), "--json"]
    )
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert facts["recipes"]["groups"][0]["runs"] == [run.name for run in runs]
    with pytest.raises(RecipeError, match="no run is named"):
        compare(out=tmp_path)


def test_fault_068_runs_with_other_rows_are_refused(recipe: Path, runs: list[Path], tmp_path: Path) -> None:
    write_jsonl(recipe.parent / "more.jsonl", pair_rows(44, seed=3))
    other = finished_run(recipe, 3, f"data.train=[{{path: {recipe.parent}/more.jsonl}}]")
    with pytest.raises(RecipeError, match=r"other rows: .* only in "):
        compare([str(runs[0]), str(other)], out=tmp_path)
    with pytest.raises(StorageError, match="neither a run nor results"):
        compare([str(runs[0]), str(tmp_path)], out=tmp_path)
    with pytest.raises(RecipeError, match="'a' names no group"):
        compare([str(run) for run in runs], group=["a"], out=tmp_path)


def test_runs_are_named_once_and_groups_name_them_by_path_or_name(runs: list[Path], tmp_path: Path) -> None:
    one, two = map(str, runs)
    with pytest.raises(RecipeError, match=f"'{runs[0].name}' is named twice"):
        compare([one, f"{one}/"], out=tmp_path)
    with pytest.raises(RecipeError, match=r"'a' is named twice.*all its runs at once"):
        compare([one, two], group=[f"a={one}", f"a={two}"], out=tmp_path)
    assert groups_of([f"a={one},{runs[1].name}"], names_of([one, two])) == {"a": [run.name for run in runs]}
    assert groups_of(["a=x/run", "b=y/run"], names_of(["x/run", "y/run"])) == {"a": ["x/run"], "b": ["y/run"]}


def test_run_folders_are_listed(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(recipe, 5, "train.output_dir=" + str(recipe.parent / "listed"))
    unfinished = finished_run(recipe, 6, "train.output_dir=" + str(recipe.parent / "listed"))
    path = unfinished / "status.json"
    status = json.loads(path.read_text()) | {"state": "training", "code": None, "step": 3, "eval": None}
    path.write_text(json.dumps(status))
    line = {"step": 3, "time": 1.0, "attempt": 0, "perf/eta_s": 61.0}
    (unfinished / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    os.utime(path, (1e9, 1e9))

    list_runs(folder.parent, True)
    done, going = json.loads(capsys.readouterr().out)["runs"]
    assert (done["state"], done["code"], done["accuracy"], done["eta_s"]) == ("finished", 0, 0.75, None)
    assert (going["state"], going["step"], going["eta_s"], going["code"]) == ("training", 3, 61.0, None)
    list_runs(folder.parent)
    told = capsys.readouterr().out
    assert "0.750 [0.500, 0.900]" in told and "3/8" in told and "0:01:01" in told
    assert "silent for" in told and "train.resume=" in told
    path.write_text(path.read_text()[:40])  # a power cut
    list_runs(folder.parent)
    assert "unknown" in capsys.readouterr().out
    list_runs(folder.parent, True)
    assert "cannot be read" in json.loads(capsys.readouterr().out)["runs"][0]["message"]
    with pytest.raises(StorageError, match="no such folder"):
        list_runs(recipe.parent / "nowhere")
