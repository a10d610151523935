"""Killed at any step and at any write, with a full disk or a flipped bit: the same command ends with the very same weights and losses."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dpo_cli.runs.checkpoint import MANIFEST, MODEL, OPTIMIZER, REFERENCE, STATE
from tests.faults.runs import STEPS, Done, Dpo, Outcome, committed, flip_a_bit, only_run, outcome, status_of

CHECKPOINT = "dpo_cli.runs.checkpoint."
WRITE_POINTS = [
    # Before each of these calls while the fourth checkpoint is written, and the second deleted.
    *((f"{CHECKPOINT}save_file", call) for call in (10, 11, 12)),
    *((f"{CHECKPOINT}_sync", call) for call in range(23, 30)),
    *((f"{CHECKPOINT}_digest", call) for call in range(13, 17)),
    (f"{CHECKPOINT}_seal", 4),
    (f"os.rename?{'step-00000004'}", 1),
    (f"os.rename?{'trash'}", 2),
    *((f"os.unlink?{name}", 2) for name in (MANIFEST, MODEL, OPTIMIZER, STATE)),
    ("os.rmdir?trash", 2),
]
"""(function, call): what a checkpoint does to the disk, in this process's code."""


def train(dpo: Dpo, tiny: Path, output: Path, *at: tuple[str, int, str], **limits: int) -> Done:
    """Train in a process of its own."""
    return dpo("train", str(tiny), f"train.output_dir={output}", cwd=tiny.parent, at=at, limits=limits)


def assert_continues(dpo: Dpo, tiny: Path, output: Path, oracle: Outcome) -> Done:
    """The same command ends as if nothing had been, and leaves nothing half written."""
    done = train(dpo, tiny, output)

    assert done.rc == 0, done.err
    assert outcome(only_run(output)) == oracle
    assert committed(only_run(output)) == [STEPS - 1, STEPS]
    assert not [path for path in only_run(output).rglob(".*") if path.name.startswith((".tmp", ".trash"))]
    return done


@pytest.mark.parametrize(
    "step", [pytest.param(k, marks=() if k == 6 else pytest.mark.slow) for k in range(1, STEPS + 1)]
)
def test_fault_002_killed_in_any_step_the_run_ends_as_if_not(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, step: int
) -> None:
    first = train(dpo, tiny, tmp_path / "runs", ("dpo_cli.train.loop._update", step, "SIGKILL"))

    assert first.rc == -9
    assert status_of(tmp_path / "runs")["state"] in ("starting", "training")
    assert_continues(dpo, tiny, tmp_path / "runs", oracle)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [2, 15, 30])
def test_fault_002_killed_between_micro_batches(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, micro_batch: int
) -> None:
    first = train(dpo, tiny, tmp_path / "runs", ("dpo_cli.train.loop.score", micro_batch, "SIGKILL"))

    assert first.rc == -9
    assert_continues(dpo, tiny, tmp_path / "runs", oracle)


@pytest.mark.slow
def test_fault_002_killed_again_and_again(dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(6):
        at = ("dpo_cli.train.loop._update", rng.randrange(1, 4), "SIGKILL")
        assert train(dpo, tiny, tmp_path / "runs", at).rc in (-9, 0)

    if status_of(tmp_path / "runs")["state"] != "finished":
        assert_continues(dpo, tiny, tmp_path / "runs", oracle)
    assert outcome(only_run(tmp_path / "runs")) == oracle


@pytest.mark.slow
@pytest.mark.parametrize(("target", "call"), WRITE_POINTS)
def test_fault_001_and_003_killed_at_any_write_of_a_checkpoint(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, target: str, call: int
) -> None:
    first = train(dpo, tiny, tmp_path / "runs", (target, call, "SIGKILL"))

    assert first.rc == -9, first.err
    assert committed(only_run(tmp_path / "runs")) in ([2, 3], [2, 3, 4], [3, 4])
    assert_continues(dpo, tiny, tmp_path / "runs", oracle)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "call", "errno"),
    [
        (f"{CHECKPOINT}save_file", 10, "ENOSPC"),
        (f"{CHECKPOINT}save_file", 11, "ENOSPC"),
        (f"{CHECKPOINT}save_file", 12, "ENOSPC"),
        (f"{CHECKPOINT}_seal", 4, "ENOSPC"),
        *((f"{CHECKPOINT}_sync", call, "EIO") for call in range(23, 30)),
    ],
)
def test_fault_005_and_007_a_disk_that_is_full_or_fails_costs_one_checkpoint(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, target: str, call: int, errno: str
) -> None:
    first = train(dpo, tiny, tmp_path / "runs", (target, call, errno))

    status = status_of(tmp_path / "runs")
    assert first.rc == status["code"] == 5
    assert (status["state"], status["resumable"]) == ("failed", True)
    assert first.err.splitlines()[-1].startswith("dpo: error[5] ") and "Traceback" not in first.err
    assert "step-00000004: checkpoint not written (0.00 needed, " in first.err
    assert not list(only_run(tmp_path / "runs").rglob(".tmp-*"))
    assert_continues(dpo, tiny, tmp_path / "runs", oracle)


@pytest.mark.slow
def test_fault_005_a_full_disk_is_told_at_the_next_step_and_mended(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path
) -> None:
    """The optimizer's file does not fit: no step is trained for nothing, and what was committed stays."""
    output = tmp_path / "runs"
    assert train(dpo, tiny, output, ("dpo_cli.train.loop._update", 5, "SIGTERM")).rc == 75
    before = committed(only_run(output))
    size = (only_run(output) / "checkpoints" / "step-00000005" / MODEL).stat().st_size

    full = train(dpo, tiny, output, RLIMIT_FSIZE=size + 1)

    assert full.rc == 5
    assert "File too large" in full.err.splitlines()[-1]
    assert committed(only_run(output)) == before == [4, 5]
    assert_continues(dpo, tiny, output, oracle)


@pytest.fixture(scope="module")
def stopped(dpo: Dpo, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an output folder with a run that has checkpoints 7 and 8."""
    output = tmp_path_factory.mktemp("stopped") / "runs"
    assert train(dpo, tiny, output, ("dpo_cli.train.loop._update", 8, "SIGTERM")).rc == 75
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", [MANIFEST, MODEL, OPTIMIZER, REFERENCE, STATE])
def test_fault_012_a_flipped_bit_costs_a_step_and_nothing_else(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, stopped: Path, name: str
) -> None:
    output = Path(shutil.copytree(stopped, tmp_path / "runs"))
    newest = only_run(output) / "checkpoints" / "step-00000008"
    flip_a_bit(newest / name, 12_345)

    done = assert_continues(dpo, tiny, output, oracle)

    assert f"{newest} is not used: " in done.err
    assert "resuming after step 7 of 12" in done.err


@pytest.mark.slow
def test_lost_choices_and_a_lost_pin_change_nothing(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, stopped: Path
) -> None:
    """Both are in every checkpoint, too: other micro-batches or a reference scored again would end in other bits."""
    output = Path(shutil.copytree(stopped, tmp_path / "runs"))
    (only_run(output) / "choices.json").unlink()
    shutil.rmtree(only_run(output) / "reference")
    shutil.rmtree(tiny.parent / "store")

    assert_continues(dpo, tiny, output, oracle)
