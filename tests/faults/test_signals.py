"""Asked to stop, in every phase: what is committed is whole, the exit code is 75, and the same command ends as if nothing had been."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.faults.runs import STEPS, Done, Dpo, Outcome, committed, only_run, outcome, status_of

PHASES = {
    "data": ("dpo_cli.train.setup.load_data", 1),
    "model": ("dpo_cli.train.setup.load_policy", 1),
    "reference": ("dpo_cli.reference.fill._scored", 2),
    "step": ("dpo_cli.train.fit.optimizer_step", 5),
    "accumulation": ("dpo_cli.train.loop.score", 12),
    "evaluation": ("dpo_cli.train.setup.score_over_ranks", 1),
    "snapshot": ("dpo_cli.train.checkpoint_writer.take_snapshot", 2),
    "save": ("dpo_cli.runs.checkpoint._write", 2),
    "last evaluation": ("dpo_cli.train.setup.score_over_ranks", 3),
    "model folder": ("dpo_cli.train.finish.finish._fit_for_serving", 1),
    "measurement": ("dpo_cli.train.setup.score_over_ranks", 4),
}
BEFORE_TRAINING = ("data", "model", "reference")


@pytest.mark.slow
def test_fault_019_a_stop_in_the_last_evaluation_saves_what_no_checkpoint_holds(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    at = (*PHASES["last evaluation"], "SIGTERM")
    first = train(dpo, tiny, output, "train.save_every=0", at=(at,))

    assert first.rc == 75, first.err
    assert "SIGTERM after step 12 of 12, saved" in first.err
    second = dpo(*shlex.split(status_of(output)["resume"])[1:], cwd=tiny.parent)
    assert second.rc == 0, second.err
    assert outcome(only_run(output)) == oracle


def train(
    dpo: Dpo, tiny: Path, output: Path, *overrides: str, at: tuple[tuple[str, int, str], ...] = ()
) -> Done:
    """Train in a process of its own; without a reference in the user's store."""
    where = [f"train.output_dir={output}", f"reference.store={output.parent / 'store'}"]
    return dpo("train", str(tiny), *where, *overrides, cwd=tiny.parent, at=at)


@pytest.mark.parametrize(
    "phase", [pytest.param(name, marks=() if name == "step" else pytest.mark.slow) for name in PHASES]
)
def test_fault_019_sigterm_in_any_phase_is_continued_to_the_same_end(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path, phase: str
) -> None:
    output = tmp_path / "runs"
    target, call = PHASES[phase]

    first = train(dpo, tiny, output, "train.save_every=4", at=((target, call, "SIGTERM"),))

    assert first.rc == 75, first.err
    status = status_of(output)
    assert (status["state"], status["code"]) == ("stopped", 75)
    assert status["message"].startswith("SIGTERM ")
    assert first.err.splitlines()[-1].startswith(f"dpo: stopped[75] {only_run(output)}: SIGTERM ")
    assert first.err.endswith(f"Continue: {status['resume']}\n")
    assert "Traceback" not in first.err
    assert status["resumable"] is bool(committed(only_run(output))) is (phase not in BEFORE_TRAINING)
    assert not list(only_run(output).rglob(".tmp-step*"))

    second = dpo(*shlex.split(status["resume"])[1:], cwd=tiny.parent)

    assert second.rc == 0, second.err
    assert outcome(only_run(output)) == oracle


@pytest.mark.slow
def test_a_stop_is_saved_at_the_end_of_its_step_though_checkpoints_are_off(
    dpo: Dpo, tiny: Path, tmp_path: Path
) -> None:
    at = (("dpo_cli.train.loop.score", 12, "SIGTERM"),)
    done = train(dpo, tiny, tmp_path / "runs", "train.save_every=0", at=at)

    status = status_of(tmp_path / "runs")
    assert done.rc == 75
    assert committed(only_run(tmp_path / "runs")) == [status["step"]]
    assert status["message"] == f"SIGTERM after step {status['step']} of {STEPS}, saved"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_fault_020_and_024_one_interrupt_or_a_hangup_is_as_sigterm(
    dpo: Dpo, tiny: Path, tmp_path: Path, name: str
) -> None:
    at = (("dpo_cli.train.fit.optimizer_step", 3, name),)
    done = train(dpo, tiny, tmp_path / "runs", "train.save_every=0", at=at)

    assert done.rc == status_of(tmp_path / "runs")["code"] == 75
    assert committed(only_run(tmp_path / "runs")) == [3]
    assert f"{name}: finishing this step, then saving" in done.err
    assert ("once more leaves at once" in done.err) is (name == "SIGINT")


@pytest.mark.slow
def test_fault_020_the_second_interrupt_leaves_at_once(
    dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path
) -> None:
    at = (
        ("dpo_cli.train.fit.optimizer_step", 6, "SIGINT"),
        ("dpo_cli.runs.checkpoint._seal", 6, "SIGINT"),  # in the middle of the sixth checkpoint
    )
    done = train(dpo, tiny, tmp_path / "runs", at=at)

    status = status_of(tmp_path / "runs")
    assert done.rc == status["code"] == 130
    assert status["state"] == "stopped" and "once more" in done.err
    # The signal interrupts the main thread while another writes: on a busy machine that one may come to its end first.
    assert committed(only_run(tmp_path / "runs")) in ([4, 5], [5, 6])
    again = train(dpo, tiny, tmp_path / "runs")
    assert again.rc == 0 and outcome(only_run(tmp_path / "runs")) == oracle
    assert not list((only_run(tmp_path / "runs") / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_fault_024_sigusr1_saves_and_goes_on(dpo: Dpo, tiny: Path, oracle: Outcome, tmp_path: Path) -> None:
    at = (("dpo_cli.train.fit.optimizer_step", 3, "SIGUSR1"),)
    done = train(dpo, tiny, tmp_path / "runs", "train.save_every=0", at=at)

    assert done.rc == 0, done.err
    assert committed(only_run(tmp_path / "runs")) == [3]
    assert outcome(only_run(tmp_path / "runs")) == oracle


@pytest.mark.slow
def test_sigterm_in_a_fill_keeps_what_is_committed(dpo: Dpo, tiny: Path, tmp_path: Path) -> None:
    store = f"reference.store={tmp_path / 'store'}"
    at = (("dpo_cli.reference.fill._scored", 2, "SIGTERM"),)
    done = dpo("precompute-ref", str(tiny), store, cwd=tiny.parent, at=at)

    assert done.rc == 75
    assert done.err.splitlines()[-1].startswith("dpo: stopped[75] SIGTERM: what is committed is kept")
    assert list((tmp_path / "store").rglob("seg/*.parquet"))
