"""Runs that go wrong without stopping: the warning comes from real curves, with its evidence, and stays in `status.json`."""

from __future__ import annotations

import dataclasses
import io
import random
import re
from pathlib import Path

import pytest
from rich.console import Console

from dpo_cli.metrics.sinks import Fanout, RunInfo
from dpo_cli.metrics.sinks.console import ConsoleSink
from dpo_cli.recipe.load import load
from dpo_cli.runs.status import Status, read_status
from dpo_cli.train.callbacks import LogEvent
from dpo_cli.train.fit import fit
from dpo_cli.train.nonfinite import FiniteCheck
from dpo_cli.train.run import train
from dpo_cli.train.step_plan import examples_of_step
from tests.fakes import pair_rows, write_jsonl, write_model
from tests.train.small import small_run

Rows = list[dict[str, str]]


def noted(folder: Path, rows: Rows, *overrides: str) -> dict[str, str]:
    """Train a tiny model on the rows, in batches of 8 and a log a step; give the notes that its `status.json` keeps."""
    run, _ = small_run(folder, *overrides, rows=rows)
    file, status = io.StringIO(), Status(str(folder), "digest")
    console = ConsoleSink(Console(file=file, width=200, _environ={}))
    console.start(
        RunInfo(
            "run",
            folder,
            steps=run.total_steps,
            recipe=dataclasses.asdict(run.recipe),
            starts_at_zero=run.method.needs_reference,
        )
    )
    run.events = [LogEvent(Fanout([console]), console, status, FiniteCheck(folder, 0), every=1)]
    fit(run)
    kept = read_status(folder)

    assert kept is not None
    assert all(file.getvalue().count(f"note: {note}\n") == 1 for note in kept.notes), "printed once"
    return dict(note.split(": ", 1) for note in kept.notes)


def turned(rows: Rows, seed: int = 0) -> Rows:
    """Give the pairs with every second label wrong, by lot."""
    rng = random.Random(seed)
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if rng.random() < 0.5 else row
        for row in rows
    ]


def test_fault_081_a_gradient_spike_is_told_with_its_step(tmp_path: Path) -> None:
    rows = pair_rows(96)
    settings = ("train.epochs=1", "data.max_length=2048", "optim.lr=1e-4")
    calm = noted(tmp_path / "calm", rows, *settings)
    outlier = examples_of_step(8, 96, 8, 0)[0]  # a row of the ninth step
    rows[outlier] = {"prompt": "Sing", "chosen": "la " * 300, "rejected": "no " * 300}
    told = noted(tmp_path / "spike", rows, *settings)

    assert "gradient spike" not in calm
    assert "at step 9, " in told["gradient spike"]
    assert "look for rows unlike the rest (very long, repeating) and lower optim.lr" in told["gradient spike"]


@pytest.mark.slow
def test_fault_081_margins_that_saturate_are_told_with_the_gradient_that_is_left(tmp_path: Path) -> None:
    settings = ("train.epochs=24", "optim.lr=5e-3")
    told = noted(tmp_path / "long", pair_rows(16), *settings)
    short = noted(tmp_path / "short", pair_rows(16), *settings, "train.max_steps=10")

    assert "training accuracy 1.000, margin +" in told["margins saturated"]
    assert re.search(r"margin \+4\.\d+, 0\.\d+ effective pairs a step of 8, ", told["margins saturated"])
    assert "fewer train.epochs or a lower optim.lr" in told["margins saturated"]
    assert "margins saturated" not in short


@pytest.mark.slow
def test_fault_081_an_accuracy_of_a_coin_is_told_once_something_moves(tmp_path: Path) -> None:
    rows, settings = pair_rows(240), ("train.epochs=1", "optim.lr=1e-3")
    told = noted(tmp_path / "mixed", turned(rows), *settings)
    right = noted(tmp_path / "right", rows, *settings)
    still = noted(tmp_path / "still", turned(rows), "train.epochs=1", "optim.lr=1e-9")

    assert " over the last 20 logs, after " in told["accuracy stuck at 0.5"]
    assert "labels may be mixed up" in told["accuracy stuck at 0.5"]
    assert "accuracy stuck at 0.5" not in right
    # Where nothing moves, that is the news.
    assert "accuracy stuck at 0.5" not in still
    assert "raise optim.lr or the steps" in still["margin stuck near 0"]


@pytest.mark.slow
def test_fault_081_rows_learnt_by_heart_are_told_by_the_last_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "tiny")
    write_jsonl(tmp_path / "rows.jsonl", turned(pair_rows(8)))
    write_jsonl(tmp_path / "held.jsonl", turned(pair_rows(160, seed=1), seed=1))
    (tmp_path / "r.yaml").write_text(
        "model: {name: ./tiny}\n"
        "data: {train: [{path: rows.jsonl}], eval: [{path: held.jsonl}], cache: tokens}\n"
        "reference: {store: store}\n"
        "optim: {lr: 1e-2, warmup: 0, schedule: constant}\n"
        "train: {batch_size: 8, epochs: 40, precision: fp32, samples: 0, save_every: 0, eval_every: 0}\n"
        "log: {every: 1}\n"
    )
    status = train(load(str(tmp_path / "r.yaml"), [f"train.output_dir={tmp_path}/runs"]), "dpo train")
    kept = read_status(Path(status.run_dir))
    (told,) = (note for note in kept.notes if note.startswith("held-out accuracy stuck at 0.5: "))

    assert "it learns rows by heart" in told
    assert f"note: {told}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_healthy_run_is_told_nothing(tmp_path: Path) -> None:
    assert noted(tmp_path / "dpo", pair_rows(96), "train.epochs=3", "optim.lr=5e-4") == {}
    # Odds at beta 5 do not start at 0: it is the change that counts.
    odds = ("method={name: orpo, beta: 5}", "train.epochs=3", "optim.lr=1e-4")
    assert noted(tmp_path / "orpo", pair_rows(80), *odds) == {}


@pytest.mark.slow
def test_a_margin_past_one_in_the_first_tenth_is_told(tmp_path: Path) -> None:
    told = noted(tmp_path, pair_rows(320), "train.epochs=1", "optim.lr=1e-2")

    assert " at step 4 of 40" in told["margin past 1 early"]


def test_a_margin_that_stays_at_zero_is_told_with_what_the_optimizer_does(tmp_path: Path) -> None:
    told = noted(tmp_path, pair_rows(96), "train.epochs=3", "optim.lr=1e-9")["margin stuck near 0"]

    assert "peak lr 1e-09 (3e-07 to 5e-05 is usual for dpo)" in told and "16 steps left" in told
    assert re.search(r"attention moves 0\.\d+ lr a step, mlp moves 0\.\d+ lr a step", told)


def test_log_probs_that_fall_are_told_with_the_probability_that_is_left(tmp_path: Path) -> None:
    settings = ("train.epochs=2", "optim.lr=1e-3", "method.loss=apo_down")
    told = noted(tmp_path, pair_rows(96), *settings)["both log-probs fall"]

    kept = float(told.partition("chosen answers keep ")[2].split()[0])
    assert 0 < kept < 0.05 and "read some samples" in told


@pytest.mark.slow
def test_clipping_nearly_every_step_far_is_told(tmp_path: Path) -> None:
    settings = ("train.epochs=2", "optim.lr=1e-4")
    told = noted(tmp_path / "low", pair_rows(96), *settings, "optim.clip_norm=0.01")
    usual = noted(tmp_path / "usual", pair_rows(96), *settings, "optim.clip_norm=0.5")

    assert told["gradient clipped most of the time"].startswith("100% of the steps (steps 1 to 20), norm 1.")
    assert "gradient clipped most of the time" not in usual, "AdamW evens out a constant factor"


def test_a_clamped_drift_of_kto_is_told(tmp_path: Path) -> None:
    settings = ("method={name: kto, undesirable_weight: 4}", "train.epochs=2", "optim.lr=1e-3")
    told = noted(tmp_path, pair_rows(80), *settings)["KTO's z clamped at 0"]

    assert told.startswith("in 95% of the steps (steps 1 to 20), -") and "apo_zero_unpaired" in told


def whole_run(folder: Path, train_rows: Rows, held: Rows, *overrides: str) -> dict[str, str]:
    """Train a tiny model by `dpo train` to the end; give the notes that its `status.json` keeps."""
    write_model(folder / "tiny")
    write_jsonl(folder / "rows.jsonl", train_rows)
    write_jsonl(folder / "held.jsonl", held)
    (folder / "r.yaml").write_text(
        "model: {name: ./tiny}\n"
        "data: {train: [{path: rows.jsonl}], eval: [{path: held.jsonl}], cache: tokens}\n"
        "reference: {store: store}\n"
        "optim: {warmup: 0, schedule: constant}\n"
        "train: {batch_size: 8, precision: fp32, save_every: 0, eval_every: 0}\n"
        "log: {every: 1}\n"
    )
    loaded = load(str(folder / "r.yaml"), [f"train.output_dir={folder}/runs", *overrides])
    kept = read_status(Path(train(loaded, "dpo train").run_dir))
    assert kept is not None
    return dict(note.split(": ", 1) for note in kept.notes)


@pytest.mark.slow
def test_set_phrases_lengths_loops_and_lost_updates_are_told(tmp_path: Path) -> None:
    rows = [{**row, "rejected": ("No.", "Never.")[i % 2]} for i, row in enumerate(pair_rows(40))]
    told = whole_run(tmp_path, rows[:24], rows[24:], "optim.lr=1e-7", "train.max_steps=3", "train.samples=2")

    assert "100% of the rejected answers are one of 2 phrases" in told["completions repeat"]
    assert '"longer wins" 1.000' in told["length explains the accuracy"]
    assert told["degenerate answers"].startswith(
        "2 of 2 sampled answers are empty or loop, 2 before training"
    )
    assert "serve it in fp32" in told["rounding loses the update"]


@pytest.mark.slow
def test_rows_that_do_not_carry_over_are_told(tmp_path: Path) -> None:
    rows = [*turned(pair_rows(8)), *pair_rows(8, seed=2)]
    settings = ("optim.lr=5e-3", "train.epochs=20", "train.samples=0")
    told = whole_run(tmp_path, rows, pair_rows(160, seed=1), *settings)

    assert "training 1.000 over the last 5 logs" in told["training accuracy does not carry over"]
