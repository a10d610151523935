"""Going on: the same run, or a line that says why not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.recipe.load import load
from dpo_cli.runs.status import Status
from dpo_cli.train.run import train
from tests.fakes import pair_rows, write_jsonl, write_model

TEXT = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], split: {eval: 0}, cache: tokens}
optim: {lr: 1e-3, schedule: constant, warmup: 0}
reference: {store: store}
train: {batch_size: 8, max_steps: 2, epochs: 9, precision: fp32, save_every: 1, samples: 0}
log: {every: 1}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_model(folder / "tiny")
    write_jsonl(folder / "rows.jsonl", pair_rows(16))
    (folder / "r.yaml").write_text(TEXT)
    run(folder, f"train.output_dir={folder / 'two'}")
    run(folder, f"train.output_dir={folder / 'four'}", "train.max_steps=4")
    return folder


@pytest.fixture
def recipe(made: Path, tmp_path: Path) -> Iterator[Path]:
    """Give the recipe, whose inputs a test may change, and copy the finished runs beside the test's other files."""
    kept = tmp_path / "kept"
    shutil.copytree(made / "tiny", kept / "tiny")
    shutil.copy(made / "rows.jsonl", kept)
    for name in ("two", "four"):
        shutil.copytree(made / name, tmp_path / name)
    yield made / "r.yaml"
    shutil.rmtree(made / "tiny")
    shutil.copytree(kept, made, dirs_exist_ok=True)


def run(folder: Path, *overrides: str) -> Status:
    return train(load(str(folder / "r.yaml"), overrides), "dpo train r.yaml")


def only(output: Path) -> Path:
    (path,) = output.iterdir()
    return path


def weights(path: Path) -> bytes:
    return (path / "model" / "model.safetensors").read_bytes()


def test_a_finished_run_is_extended_to_what_it_would_have_become(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = only(tmp_path / "two")
    kept = shutil.copytree(path / "checkpoints" / "step-00000002", tmp_path / "step 2")

    status = run(recipe.parent, f"train.resume={path}", "train.max_steps=4")

    assert (status.state, status.step, status.run_dir) == ("finished", 4, str(path))
    assert status.train_seconds > json.loads((kept / "state.json").read_text())["train_seconds"] > 0
    assert weights(path) == weights(only(tmp_path / "four"))
    said = capsys.readouterr().err
    assert f"continuing the finished run {path} with train.max_steps=4" in said
    assert "resuming after step 2 of 4" in said
    assert "from 2 to 4 steps: the learning rate so far is that of 4 steps from the start" in said

    assert run(recipe.parent, f"train.resume={path}", "train.max_steps=4").message == "complete at step 4"


def test_what_more_epochs_do_to_a_falling_learning_rate_is_said(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, schedule = "name=mine", "optim.schedule=linear"
    where = f"train.output_dir={tmp_path / 'runs'}"
    run(recipe.parent, name, schedule, where, "train.max_steps=null", "train.epochs=1")
    capsys.readouterr()

    status = run(recipe.parent, name, schedule, where, "train.max_steps=null", "train.epochs=2")

    assert (status.step, status.run_dir) == (4, str(tmp_path / "runs" / "mine"))
    assert (
        "from 2 to 4 steps: the learning rate (linear) goes from 0.0005 to 0.0005;"
        " 4 steps from the start would have had another course, and end elsewhere"
    ) in capsys.readouterr().err


def test_a_finished_run_without_a_checkpoint_cannot_be_extended_and_is_left_alone(
    recipe: Path, tmp_path: Path
) -> None:
    path = only(tmp_path / "two")
    shutil.rmtree(path / "checkpoints")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    with pytest.raises(StorageError, match="is finished and holds no checkpoint to go on from"):
        run(recipe.parent, f"train.resume={path}", "train.max_steps=4")

    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_fewer_steps_than_are_done_are_refused_and_the_run_stays_finished(
    recipe: Path, tmp_path: Path
) -> None:
    path = only(tmp_path / "two")
    before = [(path / name).read_text() for name in ("status.json", "recipe.yaml")]

    with pytest.raises(RecipeError, match="2 steps are done, the recipe now asks for 1"):
        run(recipe.parent, f"train.resume={path}", "train.max_steps=1")

    status, kept = ((path / name).read_text() for name in ("status.json", "recipe.yaml"))
    assert kept == before[1]
    assert json.loads(status) == {**json.loads(before[0]), "run_dir": str(path)}
    assert run(recipe.parent, f"train.resume={path}").message == "complete at step 2"


def unfinished(tmp_path: Path) -> Path:
    """Make the run one that died after its last checkpoint."""
    path = only(tmp_path / "two")
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**status, "state": "training", "run_dir": str(path)}))
    return path


def test_fault_017_and_060_rows_that_changed_since_are_refused(recipe: Path, tmp_path: Path) -> None:
    path = unfinished(tmp_path)
    write_jsonl(recipe.parent / "rows.jsonl", pair_rows(17))

    with pytest.raises(RecipeError) as caught:
        run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")

    assert caught.value.code == 2
    (line,) = caught.value.lines()
    assert line.startswith(
        f"dpo: error[2] data.train: the rows changed since {path}/checkpoints/step-00000002"
    )
    assert line.endswith("Fix: restore the files, or train.resume=never starts another run")
    assert json.loads((path / "status.json").read_text())["resumable"], "there is a checkpoint"


def test_a_checkpoint_of_another_recipe_is_refused(recipe: Path, tmp_path: Path) -> None:
    path = unfinished(tmp_path)
    other = f"train.output_dir={tmp_path / 'other'}"
    run(recipe.parent, other, "train.seed=5", "train.max_steps=3")
    newer = only(tmp_path / "other") / "checkpoints" / "step-00000003"
    newer.rename(path / "checkpoints" / newer.name)

    with pytest.raises(
        RecipeError, match=r"train\.seed: .*step-00000003 has train\.seed=5, the recipe now says 0"
    ):
        run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")


def test_another_models_weights_are_refused(recipe: Path, tmp_path: Path) -> None:
    unfinished(tmp_path)
    shutil.rmtree(recipe.parent / "tiny")
    write_model(recipe.parent / "tiny", intermediate_size=32)

    with pytest.raises(StorageError, match="holds the weights of another model"):
        run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")


def test_another_machine_is_said(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(tmp_path)
    old = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.0")

    run(recipe.parent, f"train.output_dir={tmp_path / 'two'}", "train.max_tokens_per_micro_batch=99")

    said = capsys.readouterr().err
    assert f"not bit-exact from here: torch was {old}, is 9.9.0; max_tokens_per_micro_batch was " in said


def test_fault_025_clocks_decide_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unfinished(tmp_path)
    for number, file in enumerate(sorted(path.rglob("*"))):
        os.utime(file, (86400.0 * (number % 3), 86400.0 * (number % 3)))

    run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")

    assert "resuming after step 2 of 2" in capsys.readouterr().err
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]


def test_fault_098_links_are_neither_followed_nor_deleted_through(recipe: Path, tmp_path: Path) -> None:
    path, outside = unfinished(tmp_path), tmp_path / "outside"
    (path / "checkpoints" / "step-00000002").rename(outside)
    (path / "checkpoints" / "step-00000002").symlink_to(outside)
    (path / "checkpoints" / ".trash-link").symlink_to(recipe.parent / "tiny")
    before = sorted(outside.iterdir())

    status = run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")

    assert (status.state, status.step) == ("finished", 2)
    assert sorted(outside.iterdir()) == before
    assert (recipe.parent / "tiny" / "model.safetensors").exists()
    assert not (path / "checkpoints" / "step-00000002").is_symlink()
    assert weights(path) == weights(only(tmp_path / "two"))


def test_fault_098_a_linked_checkpoint_folder_is_refused(recipe: Path, tmp_path: Path) -> None:
    path = unfinished(tmp_path)
    (path / "checkpoints").rename(tmp_path / "outside")
    (path / "checkpoints").symlink_to(tmp_path / "outside")

    with pytest.raises(StorageError, match="checkpoints: is a link, which is not followed"):
        run(recipe.parent, f"train.output_dir={tmp_path / 'two'}")
