"""Two ranks that are not alike, or of which one is lost: the main rank ends soon, with 8 and the reason."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.runs import ROOT, status_of, write_faulty_recipe
from tests.patience import starts

pytestmark = pytest.mark.slow

PATIENCE = 8
"""Starts of an interpreter that a rank waits for another; ranks that start together differ by less."""
DEADLINE = 60
"""Starts in which the main rank must end: `PATIENCE` and what an interpreter takes to leave."""
LONG = ("train.max_steps=100000", "train.epochs=20000", "train.eval_every=0", "log.every=1")
CHECK_SHARED = """
import sys
from pathlib import Path
from dpo_cli.cli.app import main
from dpo_cli.errors import UserError
from dpo_cli.engine.rank_agreement import check_shared
from dpo_cli.engine.runtime import Runtime

runtime = Runtime("fp32")
try:
    check_shared(runtime, Path(sys.argv[1 + runtime.rank]))
except UserError as error:
    print(*error.lines(), sep="\\n", file=sys.stderr)
    sys.exit(error.code)
"""


class Ranks:
    """Two processes of one group, without a launcher that ends one where the other dies."""

    def __init__(self, *commands: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        group = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(len(commands)),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "DPO_RANK_TIMEOUT": str(starts(PATIENCE)),
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, command in enumerate(commands)
        ]

    def ended(self, rank: int) -> tuple[int, str]:
        """Wait for a rank's end; give its exit code and what it said."""
        said = self.processes[rank].communicate(timeout=starts(DEADLINE))[1]
        return self.processes[rank].returncode, said


@pytest.fixture
def started() -> Iterator[list[Ranks]]:
    """Give a list for what a test started, to end what it leaves."""
    left: list[Ranks] = []
    yield left
    for process in [process for ranks in left for process in ranks.processes]:
        process.kill()
        process.communicate()


def start(started: list[Ranks], *commands: list[str]) -> Ranks:
    started.append(Ranks(*commands))
    return started[-1]


def wait_for_steps(output: Path) -> None:
    deadline = time.monotonic() + starts(100)
    while not any(path.read_text().count("\n") > 2 for path in output.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline, "it never trained"
        time.sleep(0.05)


def training(recipe: Path, output: Path, *overrides: str) -> list[str]:
    return ["-m", "dpo_cli", "train", str(recipe), f"train.output_dir={output}", *LONG, *overrides]


@pytest.mark.parametrize("how", ["killed", "stopped answering"])
def test_fault_086_a_rank_that_is_lost_ends_the_main_one(
    tiny: Path, tmp_path: Path, started: list[Ranks], how: str
) -> None:
    output = tmp_path / "runs"
    ranks = start(started, *[training(tiny, output)] * 2)
    wait_for_steps(output)
    os.kill(ranks.processes[1].pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)

    code, said = ranks.ended(0)

    status = status_of(output)
    assert (code, status["code"], status["state"]) == (8, 8, "failed"), said
    why = (
        "another rank ended without a word (killed, or out of memory?)"
        if how == "killed"
        else "another rank does not answer"
    )
    assert f"dpo: error[8] ranks: {why}" in said
    assert why in status["message"]


def test_fault_086_what_a_failing_rank_said_is_the_main_ones_last_line(
    tmp_path: Path, started: list[Ranks]
) -> None:
    """Its own node lacks the data: the main rank waits for it in a collective."""
    recipe = write_faulty_recipe(tmp_path / "one")
    other = write_faulty_recipe(tmp_path / "two")
    (other.parent / "rows.jsonl").unlink()
    output, model = tmp_path / "runs", f"model.name={recipe.parent / 'tiny'}"

    ranks = start(started, training(recipe, output, model), training(other, output, model))
    (code, said), (other_code, other_said) = ranks.ended(0), ranks.ended(1)

    assert other_code == 3, other_said
    (reason,) = [line for line in other_said.splitlines() if line.startswith("dpo: error[3]")]
    assert code == status_of(output)["code"] == 8, said
    assert f"dpo: error[8] rank 1: ended the run: {reason}" in said
    assert reason in status_of(output)["message"]


@pytest.mark.parametrize("what", ["seed", "data"])
def test_fault_087_ranks_that_differ_stop_before_the_first_step(
    tmp_path: Path, started: list[Ranks], what: str
) -> None:
    recipe = write_faulty_recipe(tmp_path / "one")
    other, override = recipe, "train.seed=5"
    if what == "data":
        other, override = write_faulty_recipe(tmp_path / "two", n=41), "train.seed=0"
    output, model = tmp_path / "runs", f"model.name={recipe.parent / 'tiny'}"

    ranks = start(started, training(recipe, output, model), training(other, output, model, override))

    for code, said in (ranks.ended(0), ranks.ended(1)):
        assert code == 8, said
        where = (
            "train.seed: rank 0 has 0, rank 1 has 5"
            if what == "seed"
            else "digest of the encoded rows: rank 0 has"
        )
        assert f"dpo: error[8] {where}" in said
    assert not list(output.glob("*/metrics.jsonl"))


def test_fault_089_an_output_folder_that_one_node_cannot_see_is_refused(
    tmp_path: Path, started: list[Ranks]
) -> None:
    roots = [tmp_path / "node0", tmp_path / "node1"]
    for root in roots:
        root.mkdir()
    command = ["-c", CHECK_SHARED, *map(str, roots)]

    ranks = start(started, command, command)

    for code, said in (ranks.ended(0), ranks.ended(1)):
        assert code == 5, said
        assert "rank 1 cannot see this folder: it is not on a disk that all nodes share" in said
    assert not list(roots[0].iterdir())


def test_a_folder_that_all_see_passes_and_keeps_no_old_words(tmp_path: Path, started: list[Ranks]) -> None:
    (tmp_path / "rank-1.failed").write_text("long ago")
    command = ["-c", CHECK_SHARED, str(tmp_path), str(tmp_path)]

    ranks = start(started, command, command)

    assert ranks.ended(0)[0] == ranks.ended(1)[0] == 0
    assert not list(tmp_path.iterdir())
