"""Recipes whose keys, command and machine contradict each other: exit code 2, everything named at once with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dpo_cli.cli.app import main
from dpo_cli.recipe.load import load
from dpo_cli.train.callbacks import SaveEvent
from dpo_cli.train.checkpoint_writer import Saver
from dpo_cli.train.fit import fit
from dpo_cli.train.nonfinite import FiniteCheck
from dpo_cli.train.signals import Signals
from tests.train.small import small_run
from tests.train.tiny_recipe import write_recipe

RECIPE = """\
model: {name: org/model, allow_rounding: true}
data: {train: [{path: rows.jsonl}]}
method: {name: simpo}
reference: {model: org/other, precision: bf16}
optim: {warmup: 9}
train: {precision: bf16, compile: blocks, max_steps: 5}
"""


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not multiply bf16."""
    import dpo_cli.modeling.precision as precision

    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> list[str]:
    """Run a command that should end with 2; give what it said, a line a problem."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["dpo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("dpo: ")]


NAMED = (
    "r.yaml:1: 'model.allow_rounding' is true, but 'model.save_dtype' is fp32, which rounds nothing",
    "r.yaml:4: 'reference.model' is set, but 'simpo' compares with no reference",
    "r.yaml:5: 'optim.warmup' is 9 steps, more than 'train.max_steps' (5)",
    "r.yaml:6: 'train.precision' is bf16, which this machine's CPU does not multiply. Fix: train.precision: auto",
    "r.yaml:6: 'train.compile' is 'blocks', which needs a CUDA GPU, and there is none. Fix: train.compile: auto",
    "r.yaml:4: 'reference.precision' is bf16, which this machine's CPU does not multiply",
)


@pytest.mark.usefixtures("plain_cpu")
@pytest.mark.parametrize("command", ["train", "precompute-ref"])
def test_fault_066_contradictions_are_all_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    told = refused(monkeypatch, capsys, tmp_path, command, "r.yaml")
    wanted = list(NAMED)
    if command == "precompute-ref":
        wanted.append("r.yaml:3: 'simpo' compares with no reference, so there is nothing to score")

    assert len(told) == len(wanted)
    for line in wanted:
        assert any(each.startswith(f"dpo: error[2] {line}") for each in told), line


@pytest.mark.parametrize("arguments", [("export", "out.parquet"), ("import", "in.parquet")])
def test_fault_066_a_method_without_a_reference_has_no_values_to_exchange(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
) -> None:
    (tmp_path / "r.yaml").write_text("model: {name: org/model}\ndata: {train: [{path: rows.jsonl}]}\n")
    action, file = arguments
    told = refused(monkeypatch, capsys, tmp_path, "cache", action, "r.yaml", file, "method.name=orpo")

    assert len(told) == 1
    assert "override method.name: 'orpo' compares with no reference" in told[0]


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (("reference.source=none",), "override reference.source: 'reference.source' is none, but 'dpo'"),
        (("reference.revision=main",), "override reference.revision: 'reference.revision' is set, but"),
        (
            ("train.gradient_accumulation_steps=3", "train.save_every=4"),
            "did you mean 'train.max_tokens_per_micro_batch'?",
        ),
        (("method.precompute_ref_log_probs=true",), "did you mean 'reference.source'?"),
    ],
)
def test_fault_066_what_other_trainers_let_contradict_is_refused_or_cannot_be_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    wanted: str,
) -> None:
    (tmp_path / "r.yaml").write_text("model: {name: org/model}\ndata: {train: [{path: rows.jsonl}]}\n")
    (told,) = refused(monkeypatch, capsys, tmp_path, "train", "r.yaml", *overrides)

    assert wanted in told


@pytest.mark.parametrize("budget", [10_000, 300])
def test_fault_066_checkpoints_count_steps_however_a_step_is_accumulated(tmp_path: Path, budget: int) -> None:
    run, _ = small_run(tmp_path, "train.max_steps=5", token_budget=budget)
    folder = tmp_path / "checkpoints"
    saver = Saver(folder, keep_last=9, facts={}, extra={})
    run.events = [SaveEvent(saver, Signals(), FiniteCheck(tmp_path, 0), every=2)]
    fit(run)
    saver.join()

    assert sorted(path.name for path in folder.iterdir()) == [f"step-{n:08d}" for n in (2, 4, 5)]


@pytest.mark.usefixtures("plain_cpu")
def test_fault_066_a_dry_run_may_stand_on_another_machine_than_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    told = refused(monkeypatch, capsys, tmp_path, "train", str(recipe), "train.precision=bf16")
    monkeypatch.setattr(sys, "argv", ["dpo", "train", str(recipe), "train.precision=bf16", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()

    assert len(told) == 1
    assert ended.value.code == 0
    assert load(str(recipe), ["train.precision=bf16"]).recipe.train.precision == "bf16"
    assert not (tmp_path / "runs").exists()


def test_fault_066_a_machine_with_bf16_is_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dpo_cli.modeling.precision as precision
    from dpo_cli.cli import here

    (tmp_path / "r.yaml").write_text("model: {name: org/model}\ndata: {train: [{path: rows.jsonl}]}\n")
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert load(str(tmp_path / "r.yaml"), ["train.precision=bf16"], here.machine)
    monkeypatch.delattr(precision, "bf16_problems")
    assert load(str(tmp_path / "r.yaml"), [], here.machine), "auto asks the machine nothing"
