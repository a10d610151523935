"""Whose values are used: nobody else's, unless the user said so outside every recipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.reference.permissions import open_store
from dpo_cli.reference.store import Store

VALUES = {"a" * 32: (-1.5, 3)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home of its own for cache and configuration."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def lab(home: Path) -> Path:
    """Give a store with a value that a group can write to."""
    root = home / "lab"
    Store(root, "ns", {}).write(VALUES)
    root.chmod(0o770)
    return root


def configure(home: Path, text: str) -> None:
    (home / "config" / "dpo-cli").mkdir(parents=True)
    (home / "config" / "dpo-cli" / "config.yaml").write_text(text)


def test_a_store_of_ones_own_is_read_and_written(home: Path) -> None:
    open_store(None, "ns", {}).write(VALUES)

    assert open_store(None, "ns", {}).read() == VALUES
    assert (home / "cache" / "dpo-cli" / "reference").stat().st_mode & 0o777 == 0o700


def test_a_store_made_under_a_group_umask_is_still_ones_own(home: Path) -> None:
    before = os.umask(0o002)
    try:
        open_store(str(home / "new" / "store"), "ns", {}).write(VALUES)
    finally:
        os.umask(before)

    assert open_store(str(home / "new" / "store"), "ns", {}).read() == VALUES


@pytest.mark.parametrize("inner", ["", "v1", "v1/ns", "v1/ns/seg"])
def test_fault_038_a_store_that_others_can_write_to_is_refused(home: Path, inner: str) -> None:
    root = lab(home)
    root.chmod(0o700)
    (root / inner).chmod(0o770)

    with pytest.raises(StorageError, match="others can write to it") as caught:
        open_store(str(root), "ns", {})

    assert caught.value.code == 5
    assert "trust: group" in str(caught.value)


def test_fault_038_a_store_of_another_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lab(home)
    root.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)

    with pytest.raises(StorageError, match="owns it"):
        open_store(str(root), "ns", {})


def test_fault_038_with_trust_a_labs_store_is_read_and_ones_own_written(home: Path) -> None:
    root = lab(home)
    configure(home, "trust: group\n")
    store = open_store(str(root), "ns", {})
    before = sorted(root.rglob("*"))

    assert store.read() == VALUES
    assert store.unproven == set(VALUES)
    path = store.write({"b" * 32: (-2.5, 4)})
    assert home / "cache" in path.parents
    assert sorted(root.rglob("*")) == before
    again = open_store(str(root), "ns", {})
    assert again.read() == VALUES | {"b" * 32: (-2.5, 4)}
    assert again.unproven == set(VALUES)


def test_fault_038_a_damaged_segment_of_a_lab_is_left_where_it_is(home: Path) -> None:
    root = lab(home)
    configure(home, "trust: group\n")
    path = next(root.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])

    assert open_store(str(root), "ns", {}).read() == {}
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trust: everyone\n", "none | group"),
        ("trusted: group\n", "did you mean 'trust'"),
        ("- trust\n", "group of keys"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_line(home: Path, text: str, told: str) -> None:
    root = lab(home)
    configure(home, text)

    with pytest.raises(RecipeError) as caught:
        open_store(str(root), "ns", {})

    assert told in str(caught.value)
    assert "config.yaml" in str(caught.value)
