"""Checkpoints: bit-equal, complete or not there, and never trusted when damaged."""

from __future__ import annotations

import json
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from dpo_cli.errors import StorageError
from dpo_cli.runs.checkpoint import (
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    take_snapshot,
)
from tests.fakes import tiny_llama


def trained(seed: int = 0, steps: int = 2, tied: bool = False) -> tuple[nn.Module, torch.optim.AdamW]:
    """A model and its optimizer after a few real steps."""
    model = tiny_llama(seed, tie_word_embeddings=tied)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.arange(5, 25)[None]
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(folder: Path, step: int, keep_last: int = 10) -> tuple[nn.Module, torch.optim.AdamW]:
    model, optimizer = trained(steps=step)
    save_checkpoint(folder, step, take_snapshot(model, optimizer), {"meter": [step]}, keep_last)
    return model, optimizer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_equal(
    left: tuple[nn.Module, torch.optim.Optimizer], right: tuple[nn.Module, torch.optim.Optimizer]
) -> None:
    """Weights and moments are equal to the bit."""
    pairs = zip(left[0].named_parameters(), right[0].named_parameters(), strict=True)
    for (name, mine), (other, theirs) in pairs:
        assert name == other and torch.equal(mine, theirs)
        moments, expected = left[1].state[mine], right[1].state[theirs]
        assert moments.keys() == expected.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(moments[key], expected[key]) for key in expected)
        assert all(moments[key].dtype == expected[key].dtype for key in expected)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    save(folder, 1)
    save(folder, 2)
    return folder


@pytest.fixture
def two(two_saved: Path, tmp_path: Path) -> Path:
    """Checkpoints of steps 1 and 2, to damage."""
    return Path(shutil.copytree(two_saved, tmp_path / "checkpoints"))


@pytest.mark.parametrize("tied", [False, True])
def test_a_round_trip_is_bit_equal_and_so_is_the_next_step(tmp_path: Path, tied: bool) -> None:
    saved = trained(tied=tied)
    save_checkpoint(tmp_path, 2, take_snapshot(*saved), {"meter": [1.5]}, keep_last=2)
    restored = trained(seed=1, steps=0, tied=tied)
    found, told = latest_checkpoint(tmp_path)
    assert found is not None and (found.step, found.state["meter"], told) == (2, [1.5], [])

    load_checkpoint(found, *restored)
    assert_equal(restored, saved)
    if tied:
        assert restored[0].lm_head.weight is restored[0].model.embed_tokens.weight

    ids = torch.arange(30, 50)[None]
    for model, optimizer in (saved, restored):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    assert_equal(restored, saved)


def test_all_of_the_optimizers_state_goes_where_the_weights_are(two: Path) -> None:
    model = tiny_llama().to("meta")  # any device that is not the CPU
    optimizer = torch.optim.AdamW(model.parameters())
    found, _ = latest_checkpoint(two)
    assert found is not None

    load_checkpoint(found, model, optimizer)

    kept = [value for state in optimizer.state.values() for value in state.values()]
    assert len(kept) == 3 * len(list(model.parameters()))
    assert {value.device.type for value in kept} == {"meta"}, "a fused step on a GPU reads its count there"


def test_there_is_no_checkpoint_where_none_was_written(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("seed", range(20))
def test_fault_012_any_flipped_bit_is_noticed_and_the_one_before_used(two: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = two / "step-00000002" / (MODEL, OPTIMIZER, STATE)[seed % 3]
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)

    assert _falls_back(two) == f"{path.parent} is not used: {path.name} changed since it was written"


@pytest.mark.parametrize("n_bytes", [1, 8, 4096])
@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
def test_fault_011_a_truncated_file_is_noticed(two: Path, name: str, n_bytes: int) -> None:
    path = two / "step-00000002" / name
    path.write_bytes(path.read_bytes()[:-n_bytes])

    assert f"{name} changed" in _falls_back(two)


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, STATE])
def test_fault_015_a_file_that_the_manifest_names_is_gone(two: Path, name: str) -> None:
    (two / "step-00000002" / name).unlink()

    assert name in _falls_back(two)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', '{"files": {"state.json": 1}}'])
def test_fault_013_a_manifest_that_says_nothing_useful(two: Path, text: str) -> None:
    (two / "step-00000002" / MANIFEST).write_text(text)

    assert f"{two / 'step-00000002'} is not used" in _falls_back(two)


def _falls_back(folder: Path) -> str:
    """Check that step 1 is taken, with one line; give it."""
    found, told = latest_checkpoint(folder)
    assert found is not None and found.step == 1
    assert len(told) == 1 and "\n" not in told[0]
    return told[0]


def test_fault_014_folders_without_a_manifest_are_no_checkpoints(two: Path) -> None:
    (two / "step-00999999").mkdir()
    (two / "step-00000002" / MANIFEST).unlink()

    found, told = latest_checkpoint(two)

    assert found is not None and (found.step, told) == (1, [])


def test_all_damaged_gives_none_and_a_line_each(two: Path) -> None:
    for path in two.glob(f"*/{STATE}"):
        path.write_text("{}")

    found, told = latest_checkpoint(two)

    assert found is None and [line.partition(" ")[0][-1] for line in told] == ["2", "1"]


def test_retention_keeps_the_last_and_nothing_temporary(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep_last=2)

    assert names(tmp_path) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("keep_last", [1, 2])
def test_retention_never_deletes_the_newest_for_a_damaged_later_one(two: Path, keep_last: int) -> None:
    """After a fall-back the run writes steps below the damaged one."""
    save(two, 9)
    (two / "step-00000009" / STATE).write_text("{}")

    save(two, 3, keep_last=keep_last)

    found, _ = latest_checkpoint(two)
    assert found is not None and found.step == 3
    assert len([name for name in names(two) if name < "step-00000009"]) == keep_last


def test_a_step_is_written_over_what_is_left_of_it(two: Path) -> None:
    (two / "step-00000002" / STATE).write_text("{}")
    (two / ".tmp-step-00000002").mkdir()
    (two / ".tmp-step-00000002" / "half").write_bytes(b"half")

    model, _ = save(two, 2)

    found, told = latest_checkpoint(two)
    assert found == Checkpoint(two / "step-00000002", 2, {"step": 2, "meter": [2]}) and told == []
    assert names(two) == ["step-00000001", "step-00000002"]
    assert model is not None


def test_checkpoints_are_for_their_owner_only(two: Path) -> None:
    assert (two / "step-00000001").stat().st_mode & 0o077 == 0


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("missing", [MODEL, OPTIMIZER, STATE])
def test_fault_005_a_full_disk_leaves_the_earlier_checkpoints_and_says_where(two: Path, missing: str) -> None:
    model, optimizer = trained()
    sizes = json.loads((two / "step-00000002" / MANIFEST).read_text())["files"]
    room = {MODEL: 100, OPTIMIZER: sizes[MODEL]["size"] + 1, STATE: sizes[OPTIMIZER]["size"] + 1}[missing]
    state = {"meter": "x" * (2 * sizes[OPTIMIZER]["size"])} if missing == STATE else {}
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}

    with (
        full_disk(room),
        pytest.raises(StorageError, match=r"step-00000003: checkpoint not written") as caught,
    ):
        save_checkpoint(two, 3, take_snapshot(model, optimizer), state, keep_last=1)

    assert caught.value.code == 5 and "GiB free" in str(caught.value)
    assert len(caught.value.lines()) == 1 and "\n" not in caught.value.lines()[0]
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before
    assert names(two) == ["step-00000001", "step-00000002"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="checkpoint not written"):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, take_snapshot(*trained()), {}, keep_last=1)


def test_a_json_state_survives(tmp_path: Path) -> None:
    state = {"meter": [{"train/loss": [1.25, 3.0]}], "train_seconds": 12.5}
    save_checkpoint(tmp_path, 7, take_snapshot(*trained()), state, keep_last=1)

    found, _ = latest_checkpoint(tmp_path)

    assert found is not None and found.state == json.loads(json.dumps({"step": 7, **state}))
