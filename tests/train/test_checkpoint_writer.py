"""Saving beside training: the loop waits for a copy, never for the disk, and hears of what failed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dpo_cli.errors import NumericsError, Stopped, StorageError
from dpo_cli.runs.checkpoint import MODEL, latest_checkpoint, save_checkpoint
from dpo_cli.train import checkpoint_writer as saver_module
from dpo_cli.train.callbacks import SaveEvent
from dpo_cli.train.checkpoint_writer import Saver
from dpo_cli.train.fit import fit
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.nonfinite import FiniteCheck
from dpo_cli.train.signals import Signals, Wish
from dpo_cli.train.state import Run
from tests.train.small import small_run, weights


class Disk:
    """Stands before the real writing: waits until it is let go, and may fail."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        self.error: Exception | None = None
        self.writing = self.most_at_once = 0

    def save(self, *arguments: Any) -> Path:
        self.writing += 1
        self.most_at_once = max(self.writing, self.most_at_once)
        assert self.is_free.wait(30)
        self.writing -= 1
        if self.error is not None:
            raise self.error
        return save_checkpoint(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    slow = Disk()
    monkeypatch.setattr(saver_module, "save_checkpoint", slow.save)
    return slow


def stepped(run: Run) -> Run:
    optimizer_step(run)
    run.step += 1
    return run


def test_training_goes_on_while_the_disk_is_busy_and_the_copy_stays_as_it_was(
    tmp_path: Path, disk: Disk
) -> None:
    run, _ = small_run(tmp_path)
    told: list[int] = []
    saver = Saver(tmp_path / "checkpoints", 2, {}, {}, told.append)
    saver.save(stepped(run))
    then = weights(run)
    stepped(run)
    assert not saver.poll() and told == []

    disk.is_free.set()
    saver.join()

    found, _ = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.step == 1 and told == [1]
    kept = load_file(found.path / MODEL)
    names = [name for name, _ in run.scorer.model.named_parameters()]
    assert torch.equal(torch.cat([kept[name].flatten() for name in names]), then)
    assert not torch.equal(weights(run), then)


def test_two_are_never_written_at_once(tmp_path: Path, disk: Disk) -> None:
    run, _ = small_run(tmp_path)
    saver = Saver(tmp_path / "checkpoints", 5, {}, {})
    saver.save(stepped(run))
    threading.Timer(0.2, disk.is_free.set).start()
    for _ in range(3):
        saver.save(stepped(run))
    saver.join()

    assert disk.most_at_once == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_a_step_is_saved_once(tmp_path: Path, disk: Disk) -> None:
    disk.is_free.set()
    run, _ = small_run(tmp_path)
    saver = Saver(tmp_path / "checkpoints", 5, {}, {})
    saver.save(stepped(run))
    saver.join()
    (path,) = (tmp_path / "checkpoints").iterdir()
    written = path.stat().st_mtime_ns
    saver.save(run)
    saver.join()

    assert path.stat().st_mtime_ns == written


def test_what_fails_is_raised_at_the_next_step_boundary(tmp_path: Path, disk: Disk) -> None:
    run, _ = small_run(tmp_path)
    saver = Saver(tmp_path / "checkpoints", 2, {}, {})
    event = SaveEvent(saver, Signals(), FiniteCheck(tmp_path, 0), every=5)
    disk.error = StorageError.of("here", "disk full")
    saver.save(stepped(run))
    event.after_step(stepped(run))  # nobody knows yet
    disk.is_free.set()
    while not saver.poll():
        pass

    with pytest.raises(StorageError, match="here: disk full"):
        event.after_step(stepped(run))


def test_a_wish_to_save_is_served_once_and_one_to_stop_ends_the_run(tmp_path: Path, disk: Disk) -> None:
    disk.is_free.set()
    run, _ = small_run(tmp_path, "train.max_steps=9")
    signals = Signals()
    saver = Saver(tmp_path / "checkpoints", 9, {}, {})
    event = SaveEvent(saver, signals, FiniteCheck(tmp_path, 0), every=0)

    class Asks:
        def after_step(self, run: Run) -> None:
            signals.wish = {3: Wish.SAVE, 5: Wish.STOP}.get(run.step, signals.wish)

    run.events = [Asks(), event]
    with pytest.raises(Stopped):
        fit(run)

    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["step-00000003", "step-00000005"] and run.step == 5


def test_a_bad_step_is_told_before_it_is_saved_over(tmp_path: Path, disk: Disk) -> None:
    """A checkpoint never hides what the next log step would have stopped at."""
    disk.is_free.set()
    run, _ = small_run(tmp_path, "train.max_steps=3")
    next(run.scorer.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    saver = Saver(tmp_path / "checkpoints", 9, {}, {})
    run.events = [SaveEvent(saver, Signals(), FiniteCheck(tmp_path, 0), every=2)]

    with pytest.raises(NumericsError, match="step 1"):
        fit(run)

    assert not (tmp_path / "checkpoints").exists()


def test_fault_008_too_little_space_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    saver = Saver(tmp_path / "checkpoints", 2, {}, {})
    n_bytes = 3 * sum(weight.nbytes for weight in run.scorer.parameters())

    def disk_of(free: int) -> None:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(saver_module.shutil, "disk_usage", lambda _path: usage)

    disk_of(2 * n_bytes)
    saver.prepare(run, will_save=True)
    disk_of(2 * n_bytes - 1)
    saver.prepare(run, will_save=False)
    with pytest.raises(StorageError, match="GiB free, checkpoints need ") as caught:
        saver.prepare(run, will_save=True)
    saver.step = 1  # a resumed run has one of the two already
    saver.prepare(run, will_save=True)

    assert caught.value.code == 5
