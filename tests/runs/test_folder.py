"""Which folder a run gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import RecipeError, Stopped, StorageError
from dpo_cli.recipe.load import Loaded, load
from dpo_cli.runs.folder import RECIPE, Folder, choose_folder, create
from dpo_cli.runs.status import read_status
from dpo_cli.train.record_failure import recorded
from dpo_cli.train.signals import Signals

TEXT = "model: {name: org/model}\ndata: {train: [{path: rows.jsonl}]}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(TEXT)
    return tmp_path


def recipe(*overrides: str) -> Loaded:
    return load("r.yaml", overrides)


def start(*overrides: str, end: str | None = None) -> Folder:
    """Start a run; `end` is the state that it is left in."""
    loaded = recipe(*overrides)
    folder = choose_folder(loaded)
    create(folder, loaded)
    if end == "finished":
        folder.status.state, folder.status.step = "finished", 8
    elif end == "failed":
        folder.status.state = "failed"
    folder.status.write()
    return folder


def test_a_new_run_has_the_recipes_name_and_digest_and_nothing_to_say(here: Path) -> None:
    loaded = recipe()
    folder = choose_folder(loaded)

    assert folder.path == Path("runs") / f"r-{loaded.digest[:8]}"
    assert (folder.note, folder.is_finished, folder.status.attempt) == ("", False, 0)
    assert [path.name for path in here.iterdir()] == ["r.yaml"], "choosing writes nothing"


@pytest.mark.parametrize("end", [None, "failed"])
def test_the_same_recipe_continues_its_unfinished_run(end: str | None) -> None:
    first = start(end=end)

    again = start()

    assert again.path == first.path
    assert again.note == f"continuing the unfinished run {first.path}"
    assert again.status.attempt == 1
    assert start().status.attempt == 2


def test_a_finished_run_is_left_alone_and_the_next_folder_said_aloud() -> None:
    first = start(end="finished")

    second = start(end="finished")
    third = choose_folder(recipe())

    assert (second.path.name, third.path.name) == (f"{first.path.name}-2", f"{first.path.name}-3")
    assert second.note == f"{first.path} is there already: this run goes to {second.path}"
    assert read_status(first.path) == first.status


def test_an_unfinished_second_run_is_continued() -> None:
    start(end="finished")
    second = start(end="failed")

    assert choose_folder(recipe()).path == second.path


def test_another_recipe_gets_another_folder_and_inert_keys_do_not() -> None:
    first = start()

    assert choose_folder(recipe("method.beta=0.2")).path != first.path
    assert choose_folder(recipe("log.every=1", "train.save_every=7")).path == first.path


def test_resume_never_starts_another_run() -> None:
    first = start(end="failed")

    assert choose_folder(recipe("train.resume=never")).path.name == f"{first.path.name}-2"


def test_resume_never_asks_nothing_of_the_run_that_is_there() -> None:
    start("name=mine", end="failed")

    assert choose_folder(recipe("name=mine", "method.beta=0.2", "train.resume=never")).path == Path(
        "runs/mine-2"
    )


def test_a_stop_that_comes_while_the_end_is_written_leaves_it_written() -> None:
    folder = start()
    with recorded(Runtime("fp32"), folder, recipe(), "dpo train", Signals()):
        folder.status.state = "finished"
        raise Stopped("SIGTERM")

    status = read_status(folder.path)
    assert status is not None and status.state == "finished"


def test_fault_010_a_folder_that_is_no_run_is_not_touched() -> None:
    path = choose_folder(recipe()).path
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("mine")

    assert choose_folder(recipe()).path.name == f"{path.name}-2"


def test_fault_017_a_named_run_with_another_recipe_lists_what_changed() -> None:
    start("name=mine", end="failed")

    with pytest.raises(RecipeError) as caught:
        choose_folder(recipe("name=mine", "method.beta=0.2", "train.seed=1"))

    assert caught.value.code == 2
    way_out = "Fix: another `name` (or `name: null`), or undo the change"
    assert sorted(str(problem) for problem in caught.value.problems) == [
        f"method.beta: runs/mine has method.beta=0.1, the recipe now says 0.2. {way_out}",
        f"train.seed: runs/mine has train.seed=0, the recipe now says 1. {way_out}",
    ]


def test_fault_017_holds_for_a_run_that_is_named_by_its_path() -> None:
    first = start(end="failed")

    with pytest.raises(RecipeError, match=r"optim\.lr=5e-07, the recipe now says 1e-06"):
        choose_folder(recipe("optim.lr=1e-6", f"train.resume={first.path}"))


def test_a_run_of_a_version_with_other_keys_is_the_same_if_no_key_differs() -> None:
    first = start("name=mine", end="failed")
    first.status.digest = "0" * 64
    first.status.write()

    assert choose_folder(recipe("name=mine")).path == first.path


def test_a_named_run_is_continued_by_the_same_recipe() -> None:
    start("name=b-{method.beta}", end="failed")

    assert choose_folder(recipe("name=b-{method.beta}")).path == Path("runs/b-0.1")


def test_fault_004_resuming_a_finished_run_is_nothing_to_do() -> None:
    first = start(end="finished")

    folder = choose_folder(recipe(f"train.resume={first.path}"))

    assert folder.is_finished
    assert folder.note.startswith("complete at step 8: ")
    assert folder.status.state == "finished"


def test_a_run_can_be_continued_from_another_working_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(end="failed")
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    loaded = load("../r.yaml", [f"train.resume=../{first.path}"])
    folder = choose_folder(loaded)
    create(folder, loaded)

    assert os.path.samefile(folder.path, here / first.path)
    status = read_status(here / first.path)
    assert status is not None and status.attempt == 1
    assert list(elsewhere.iterdir()) == []


def test_a_continued_run_stays_resumable_until_it_says_otherwise() -> None:
    first = start(end="failed")
    first.status.resumable = True
    first.status.write()

    assert choose_folder(recipe()).status.resumable


@pytest.mark.parametrize("text", [None, "{", '{"state": "tra'])
def test_a_run_whose_status_is_lost_or_damaged_is_continued(text: str | None) -> None:
    first = start(end="failed")
    (first.path / "status.json").unlink()
    if text is not None:
        (first.path / "status.json").write_text(text)

    assert choose_folder(recipe()).path == first.path
    assert choose_folder(recipe("train.resume=never")).path != first.path


def test_a_folder_in_which_a_kill_left_nothing_is_used() -> None:
    path = choose_folder(recipe()).path
    path.mkdir(parents=True)
    (path / "run.lock").write_text("")

    assert choose_folder(recipe()).path == path


def test_resume_needs_a_run(here: Path) -> None:
    for path in ("runs/none", str(here)):
        with pytest.raises(RecipeError, match=r"train\.resume: no run in .*auto"):
            choose_folder(recipe(f"train.resume={path}"))


def test_the_recipe_in_the_folder_gives_the_same_digest_and_resumes_no_other_run() -> None:
    first = start("method.beta=0.3", end="failed")
    start("method.beta=0.3", f"train.resume={first.path}")

    again = load(str(first.path / RECIPE))

    assert again.digest == recipe("method.beta=0.3").digest
    assert again.recipe.train.resume == "auto"


def test_fault_009_an_output_folder_that_is_a_file(here: Path) -> None:
    (here / "runs").write_text("")

    with pytest.raises(StorageError, match="runs: the output folder is a file") as caught:
        choose_folder(recipe())
    assert caught.value.code == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_fault_009_an_output_folder_that_cannot_be_written(here: Path) -> None:
    (here / "runs").mkdir(mode=0o500)
    loaded = recipe()

    with pytest.raises(StorageError, match="cannot be written: Permission denied"):
        create(choose_folder(loaded), loaded)


def test_fault_009_an_output_folder_below_a_file(here: Path) -> None:
    (here / "file").write_text("")
    loaded = recipe("train.output_dir=file/runs")

    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        create(choose_folder(loaded), loaded)


def test_a_run_folder_is_for_its_owner_only() -> None:
    assert start().path.stat().st_mode & 0o077 == 0
