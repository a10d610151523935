"""`dpo cache`: what people see of the store."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.reference.store import Store
from tests.faults.test_reference_store import filled, write_recipe

VALUES = {f"{i:032x}": (-1.0 - i, 2) for i in range(12)}


def run(*arguments: object) -> str:
    """Run a command that ends well; give its stdout."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def make(root: Path, name: str = "0123456789abcdef") -> Store:
    """Give a store of 12 completions that one run used."""
    store = Store(
        root, name, {"model": "org/model", "precision": "bf16", "layout": "packed", "made": "today"}
    )
    store.write(VALUES)
    store.note_use(Path("/runs/first"))
    return store


def test_ls_says_which_reference_how_many_and_who(tmp_path: Path) -> None:
    make(tmp_path).take_in({"f" * 32: (-1.0, 1)})

    text = run("cache", "ls", "--store", tmp_path)

    assert "1 namespaces" in text
    assert "org/model, bf16, packed rows: 13 completions (1 imported)" in text
    assert "made today" in text
    assert "by /runs/first" in text
    (found,) = json.loads(run("cache", "ls", "--store", tmp_path, "--json"))["namespaces"]
    assert (found["completions"], found["imported"], found["runs"]) == (12, 1, ["/runs/first"])


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert "0 namespaces" in run("cache", "ls", "--store", tmp_path / "none")
    assert "0 completions whole" in run("cache", "verify", "--store", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_verify_counts_and_sets_the_damaged_aside(tmp_path: Path) -> None:
    store = make(tmp_path)
    assert "12 completions whole, 0 damaged" in run("cache", "verify", "--store", tmp_path)
    path = store.write({"e" * 32: (-1.0, 1)})
    path.write_bytes(path.read_bytes()[:-7])

    done = CliRunner().invoke(app, ["cache", "verify", "--store", str(tmp_path), "--json"])

    assert isinstance(done.exception, StorageError)
    assert str(store.folder / "bad" / path.name) in str(done.exception)
    told = json.loads(done.stdout)
    assert (told["completions"], len(told["damaged"])) == (12, 1)
    assert "12 completions whole, 0 damaged" in run("cache", "verify", "--store", tmp_path)


def test_gc_removes_only_what_was_asked_for(tmp_path: Path) -> None:
    old, new = make(tmp_path, "aaaa"), make(tmp_path, "bbbb")
    long_ago = time.time() - 100 * 86_400
    for path in old.folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))

    assert run("cache", "gc", "--store", tmp_path) == "0 removed, 0 B\n"
    assert "would remove" in run("cache", "gc", "--store", tmp_path, "--unused-days", 90, "--dry-run")
    assert old.folder.exists()
    run("cache", "gc", "--store", tmp_path, "--unused-days", 90)
    assert not old.folder.exists()
    assert new.folder.exists()
    run("cache", "gc", "bb", "--store", tmp_path)
    assert not new.folder.exists()
    assert not list((tmp_path / "v1").iterdir())


def test_gc_always_removes_the_damaged_and_old_leftovers(tmp_path: Path) -> None:
    store = make(tmp_path)
    (store.folder / "bad").mkdir()
    (store.folder / "bad" / "x.parquet").write_text("damaged")
    old, fresh = store.folder / "seg" / ".tmp-old", store.folder / "seg" / ".tmp-fresh"
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (0, 0))

    removed = json.loads(run("cache", "gc", "--store", tmp_path, "--json"))["removed"]

    assert {Path(each["path"]).name for each in removed} == {"bad", ".tmp-old"}
    assert not old.exists()
    assert fresh.exists()
    assert Store(tmp_path, "0123456789abcdef", {}).read() == VALUES


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Give a recipe of 24 pairs."""
    return write_recipe(tmp_path, 24)


def test_export_and_import_give_the_same_values(recipe: Path) -> None:
    file = recipe.parent / "out.parquet"
    run("cache", "export", recipe, file)
    rows = pq.read_table(file).to_pylist()
    assert len(rows) == 24
    assert set(rows[0]) >= {"prompt", "chosen", "rejected", "ref_chosen_logps", "ref_rejected_logps"}
    assert all(row["ref_chosen_logps"] < 0 and row["chosen_ids"] for row in rows)

    text = run("cache", "import", recipe, file, f"reference.store={recipe.parent / 'other'}")
    assert "48 completions taken in, marked as imported" in text
    other = filled(recipe, f"reference.store={recipe.parent / 'other'}")
    assert (other["computed"], other["reused"]) == (0, 48)
    assert other["max_abs_diff"] < 1e-3


def test_wrong_values_are_not_imported(recipe: Path) -> None:
    file = recipe.parent / "out.parquet"
    run("cache", "export", recipe, file)
    table = pq.read_table(file)
    wrong = [value - 3 for value in table["ref_chosen_logps"].to_pylist()]
    place = table.schema.get_field_index("ref_chosen_logps")
    pq.write_table(table.set_column(place, "ref_chosen_logps", [wrong]), file)

    store = recipe.parent / "unused"
    done = CliRunner().invoke(app, ["cache", "import", str(recipe), str(file), f"reference.store={store}"])

    assert isinstance(done.exception, StorageError)
    assert "are not the reference's" in str(done.exception)
    assert not list(store.rglob("*.parquet"))


def test_a_file_without_the_columns_is_refused_by_name(recipe: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "import", str(recipe), str(recipe.parent / "rows.jsonl")])

    assert "has no 'ref_chosen_logps'" in str(done.exception)


@pytest.mark.parametrize("command", ["export", "import"])
def test_single_completions_have_no_such_columns(recipe: Path, command: str) -> None:
    arguments = ["cache", command, str(recipe), str(recipe.parent / "out.parquet"), "method.name=kto"]
    done = CliRunner().invoke(app, arguments)

    assert isinstance(done.exception, RecipeError)
    assert "'kto' trains on single completions" in str(done.exception)


def test_an_empty_name_removes_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)

    assert run("cache", "gc", "", "--store", tmp_path) == "0 removed, 0 B\n"
    assert store.read() == {}
    assert Store(tmp_path, "0123456789abcdef", {}).read() == VALUES


def test_damage_that_cannot_be_moved_is_told_all_the_same(tmp_path: Path) -> None:
    store = make(tmp_path)
    path = store.write({"e" * 32: (-1.0, 1)})
    path.write_bytes(path.read_bytes()[:-7])
    (store.folder / "bad").write_text("no folder")

    done = CliRunner().invoke(app, ["cache", "verify", "--store", str(tmp_path)])

    assert isinstance(done.exception, StorageError)
    assert str(path) in str(done.exception)
