"""Under a launcher, in a group of processes, beside another: nobody is orphaned, ranks agree, and one process has a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.runs import ROOT, Dpo, committed, only_run, status_of
from tests.patience import starts

pytestmark = pytest.mark.slow

LONG = (
    "train.max_steps=100000",
    "train.epochs=20000",
    "train.save_every=0",
    "train.eval_every=0",
    "log.every=1",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1")


class Started:
    """A `dpo train` that would take hours, in a session of its own."""

    def __init__(self, recipe: Path, output: Path, *launcher: str) -> None:
        self.output = output
        command = [sys.executable, *launcher, "-m", "dpo_cli", "train", str(recipe), *LONG]
        self.process = subprocess.Popen(
            [*command, f"train.output_dir={output}"],
            cwd=recipe.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for_steps(self) -> None:
        """Wait until it trains."""
        while not list(self.output.glob("*/metrics.jsonl")) or not self._lines():
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Give the processes that train: those which the launcher started."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found]

    def said(self) -> str:
        """Wait for the end; give stderr."""
        return self.process.communicate(timeout=starts(100))[1]

    def _lines(self) -> list[str]:
        return (only_run(self.output) / "metrics.jsonl").read_text().splitlines()


@pytest.fixture
def started(tiny: Path, tmp_path: Path) -> Iterator[list[Started]]:
    """Give a list for what a test started, to end what it leaves."""
    left: list[Started] = []
    yield left
    for each in left:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.said()


def wait_for_the_end_of(pids: list[int]) -> None:
    deadline = time.monotonic() + starts(60)
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker goes on as an orphan"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_fault_021_sigterm_to_the_whole_group_still_saves(
    tiny: Path, tmp_path: Path, started: list[Started]
) -> None:
    run = Started(tiny, tmp_path / "runs")
    started.append(run)
    run.wait_for_steps()
    os.killpg(run.process.pid, signal.SIGTERM)

    said = run.said()

    status = status_of(run.output)
    assert run.process.returncode == status["code"] == 75, said
    assert committed(only_run(run.output)) == [status["step"]]


def test_fault_022_a_launcher_that_is_stopped_leaves_no_orphan(
    tiny: Path, tmp_path: Path, started: list[Started]
) -> None:
    run = Started(tiny, tmp_path / "runs", *ACCELERATE)
    started.append(run)
    run.wait_for_steps()
    (worker,) = run.workers()
    run.process.send_signal(signal.SIGTERM)
    run.process.wait(starts(60))

    wait_for_the_end_of([worker])

    run.said()
    status = status_of(run.output)
    assert (status["state"], status["code"]) == ("stopped", 75)
    assert committed(only_run(run.output)) == [status["step"]]


@pytest.mark.parametrize("rank", [0, 1])
def test_fault_023_sigterm_to_one_of_two_ranks_stops_both_after_the_same_step(
    tiny: Path, tmp_path: Path, started: list[Started], rank: int
) -> None:
    run = Started(tiny, tmp_path / "runs", *TORCHRUN)
    started.append(run)
    run.wait_for_steps()
    os.kill(run.workers()[rank], signal.SIGTERM)

    said = run.said()

    status = status_of(run.output)
    assert (status["state"], status["code"]) == ("stopped", 75), said
    assert committed(only_run(run.output)) == [status["step"]]
    assert said.count("exitcode  : 75") == 2, said
    assert ", under the same launcher: dpo train " in said


def test_fault_023_a_launcher_hands_sigterm_to_all_ranks(
    tiny: Path, tmp_path: Path, started: list[Started]
) -> None:
    run = Started(tiny, tmp_path / "runs", *TORCHRUN)
    started.append(run)
    run.wait_for_steps()
    workers = run.workers()
    run.process.send_signal(signal.SIGTERM)
    run.said()

    wait_for_the_end_of(workers)

    status = status_of(run.output)
    assert (status["state"], status["code"]) == ("stopped", 75)
    assert committed(only_run(run.output)) == [status["step"]]


def test_fault_018_a_run_in_use_is_refused_and_a_dead_processs_lock_taken_over(
    tiny: Path, tmp_path: Path, started: list[Started], dpo: Dpo
) -> None:
    run = Started(tiny, tmp_path / "runs")
    started.append(run)
    run.wait_for_steps()
    again = ("train", str(tiny), *LONG, f"train.output_dir={run.output}")
    before = json.loads((only_run(run.output) / "status.json").read_text())

    second = dpo(*again, cwd=tiny.parent)

    assert second.rc == 5
    assert f": in use by {os.uname().nodename}:{run.process.pid} since 20" in second.err
    assert status_of(run.output)["attempt"] == before["attempt"] == 0

    run.process.kill()
    run.said()
    third = dpo(*again, cwd=tiny.parent, at=[("dpo_cli.train.fit.optimizer_step", 2, "SIGTERM")])

    assert third.rc == 75, third.err
    assert status_of(run.output)["attempt"] == 1


def test_fault_016_a_run_goes_on_with_another_number_of_ranks_and_says_so(
    tiny: Path, tmp_path: Path, started: list[Started], dpo: Dpo
) -> None:
    run = Started(tiny, tmp_path / "runs", *TORCHRUN)
    started.append(run)
    run.wait_for_steps()
    run.process.send_signal(signal.SIGTERM)
    run.said()
    step = status_of(run.output)["step"]

    at = [("dpo_cli.train.fit.optimizer_step", 2, "SIGTERM")]
    again = dpo("train", str(tiny), *LONG, f"train.output_dir={run.output}", cwd=tiny.parent, at=at)

    assert again.rc == 75, again.err
    assert "not bit-exact from here: ranks was 2, is 1" in again.err
    assert status_of(run.output)["step"] == step + 2


NAN_ON_RANK_1 = """\
import os
from dataclasses import replace
from dpo_cli.methods.simpo import METHOD as SIMPO

def loss(policy, reference, config, *prepared):
    out = SIMPO.loss(policy, reference, config, *prepared)
    if os.environ.get("RANK") != "1":
        return out
    return replace(out, terms=tuple(replace(term, losses=term.losses * float("nan")) for term in out.terms))

METHOD = replace(SIMPO, loss=loss)
"""


@pytest.mark.parametrize("budget", [0, 9])
def test_fault_079_one_ranks_bad_loss_changes_no_weight_on_any(
    tiny: Path, tmp_path: Path, budget: int
) -> None:
    (tmp_path / "nan_on_rank_1.py").write_text(NAN_ON_RANK_1)
    command = [sys.executable, *TORCHRUN, "-m", "dpo_cli", "--plugin", "nan_on_rank_1", "train", str(tiny)]
    overrides = [
        "method.name=nan_on_rank_1",
        "train.max_steps=2",
        f"train.skip_nonfinite={budget}",
    ]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, *overrides, f"train.output_dir={tmp_path / 'runs'}"],
        cwd=tiny.parent,
        env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=starts(150),
        check=False,
    )

    run_dir, status = only_run(tmp_path / "runs"), status_of(tmp_path / "runs")
    rows = json.loads((run_dir / "bad_batch.json").read_text())["rows"]
    assert {row["loss_is_finite"] for row in rows} == {True, False}
    if budget:
        assert done.returncode == status["code"] == 0, done.stderr
        final, first = (load_file(p / "model.safetensors") for p in (run_dir / "model", tiny.parent / "tiny"))
        assert all(torch.equal(final[name], first[name]) for name in first)
    else:
        assert status["code"] == 6 and "exitcode  : 6" in done.stderr, done.stderr
        assert "step 1: the loss was not finite in a micro-batch with " in status["message"]
