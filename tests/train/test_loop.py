"""One gradient, one logged value: however a step is cut, on however many ranks, interrupted or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo_cli.errors import StorageError
from dpo_cli.modeling.scorer import score
from dpo_cli.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint, take_snapshot
from dpo_cli.train.fit import fit
from dpo_cli.train.loop import count_units, normalised, optimizer_step
from dpo_cli.train.start_check import check_start
from dpo_cli.train.state import Run
from dpo_cli.train.step_plan import examples_of_step
from dpo_cli.types import LossOutput, Term
from tests.fakes import pair_rows, write_jsonl, write_model
from tests.patience import starts
from tests.train.small import small_run, weights

STEPS = "train.max_steps=3"
BUDGETS = {"1 x 8": 10_000, "2 x 4 or so": 500, "8 x 1": 2}


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_fault_082_loss_and_weights_do_not_depend_on_micro_batches_or_layout(
    tmp_path: Path, path: str
) -> None:
    runs = {}
    for name, budget in BUDGETS.items():
        run, recorder = small_run(tmp_path, STEPS, token_budget=budget, path=path)
        fit(run)
        runs[name] = (recorder.losses, weights(run))
    losses, final = runs["1 x 8"]

    for other, their_weights in runs.values():
        assert other == pytest.approx(losses, abs=1e-6)
        assert (their_weights - final).abs().max() < 1e-6


def test_fault_083_the_last_partial_step_is_the_mean_over_its_real_rows(tmp_path: Path) -> None:
    run, recorder = small_run(tmp_path, "train.epochs=1", n=20, token_budget=500)
    assert len(run.groups) == 20
    while run.step < 2:
        optimizer_step(run)
        run.step += 1
    run.meter.reduce()
    rows = [run.groups[example] for example in examples_of_step(2, 20, 8, 0)]
    with torch.no_grad():
        alone = [
            run.method.loss(
                score(run.scorer, run.scorer.layout([row])), run.reference.lookup([row]), run.recipe.method
            )
            for row in rows
        ]
    fit(run)

    assert len(rows) == 4
    expected = sum(out.terms[0].losses.item() for out in alone) / 4
    assert recorder.losses == pytest.approx([expected], abs=1e-6)


def test_terms_with_other_units_are_each_a_mean_over_the_whole_step() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0, 6.0])
    units = {"example": 4, "token": 10}
    whole = LossOutput((Term(losses), Term(losses, "token", 0.5)), {})
    parts = [LossOutput((Term(part), Term(part, "token", 0.5)), {}) for part in losses.split([1, 3])]

    assert normalised(whole, units).item() == pytest.approx(12 / 4 + 0.5 * 12 / 10)
    assert sum(normalised(part, units).item() for part in parts) == pytest.approx(
        normalised(whole, units).item()
    )


def test_a_run_stopped_after_any_step_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path,
) -> None:
    overrides = ("train.max_steps=10", "train.dropout=true", "optim.schedule=cosine", "optim.warmup=0.2")
    run, recorder = small_run(tmp_path, *overrides, dropout=0.2)
    checkpoints = tmp_path / "checkpoints"
    run.events = [recorder, _SaveAlways(checkpoints)]
    fit(run)
    truth = weights(run)

    for step in range(1, 10):
        again, rest = small_run(tmp_path, *overrides, dropout=0.2)
        for newer in range(step + 1, 11):
            (checkpoints / f"step-{newer:08d}").rename(tmp_path / f"away-{newer}")
        found, told = latest_checkpoint(checkpoints)
        assert found is not None and not told
        load_checkpoint(found, again.scorer.model, again.optimizer)
        again.step = found.step
        fit(again)
        for newer in range(step + 1, 11):
            (tmp_path / f"away-{newer}").rename(checkpoints / f"step-{newer:08d}")

        assert found.step == step
        assert rest.losses == recorder.losses[step:]
        assert torch.equal(weights(again), truth)


class _SaveAlways:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_step(self, run: Run) -> None:
        snapshot = take_snapshot(run.scorer.model, run.optimizer)
        save_checkpoint(self.folder, run.step, snapshot, {}, keep_last=99)


def test_dropout_is_really_on_in_that_test(tmp_path: Path) -> None:
    still, plain = small_run(tmp_path, STEPS)
    noisy, dropped = small_run(tmp_path, STEPS, dropout=0.2)
    fit(still)
    fit(noisy)

    assert plain.losses[0] != dropped.losses[0]


def test_units_are_counted_from_the_groups(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    groups = run.groups[:3]

    completions = sum(len(group.completions[0]) for group in groups)
    prompts = sum(len(group.prompt) - 1 for group in groups)
    assert count_units(groups) == {
        "example": 3,
        "token": completions,
        "sequence_token": completions + prompts,
        "row_token": sum(len(group.prompt) + len(ids) for group in groups for ids in group.completions),
    }


def test_self_test_passes_where_policy_is_reference_and_names_the_row_where_not(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    arguments = (run.reference, run.method, run.recipe.method, "fp32", run.runtime.autocast)

    assert "loss 0.6931 (closed form 0.6931)" in check_start(run.scorer, run.groups[:4], *arguments)
    with torch.no_grad():
        next(run.scorer.parameters()).add_(0.01)
    with pytest.raises(StorageError, match=r"rows\.jsonl.*the policy gives -"):
        check_start(run.scorer, run.groups[:4], *arguments)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, 21 rows in batches of 4, a log line a step."""
    folder = tmp_path_factory.mktemp("ranks")
    write_model(folder / "model")
    write_jsonl(folder / "rows.jsonl", pair_rows(21))
    write_jsonl(folder / "held.jsonl", pair_rows(7, seed=1))
    path = folder / "ranks.yaml"
    path.write_text(
        "model: {name: ./model}\n"
        "data: {train: [{path: rows.jsonl}], eval: [{path: held.jsonl}], cache: tokens}\n"
        "optim: {lr: 1e-3, warmup: 0, schedule: constant}\n"
        "train: {batch_size: 4, max_steps: 3, precision: fp32, samples: 0, max_tokens_per_micro_batch: 300}\n"
        "log: {every: 1}\n"
    )
    return path


def run_on(ranks: int, recipe: Path, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m"]
        if ranks > 1
        else ["-m"]
    )
    command = [sys.executable, *launcher, "dpo_cli", "train", str(recipe), f"train.output_dir={output}"]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"} | environment
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=starts(150))


def test_fault_085_two_ranks_give_one_ranks_losses_weights_and_evaluation(
    recipe: Path, tmp_path: Path
) -> None:
    results = {}
    for ranks in (1, 2):
        done = run_on(ranks, recipe, tmp_path / str(ranks))
        assert done.returncode == 0, done.stderr
        (run_dir,) = (tmp_path / str(ranks)).iterdir()
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        status = json.loads((run_dir / "status.json").read_text())
        results[ranks] = (rows, status["eval"], load_file(run_dir / "model" / "model.safetensors"))
    (rows, evaluation, final), (rows_2, evaluation_2, final_2) = results[1], results[2]

    assert [row["train/loss"] for row in rows_2[:3]] == pytest.approx(
        [row["train/loss"] for row in rows[:3]], abs=1e-6
    )
    assert [row["train/grad_norm"] for row in rows_2[:3]] == pytest.approx(
        [row["train/grad_norm"] for row in rows[:3]], rel=1e-5
    )
    assert evaluation_2["n"] == evaluation["n"] == 7
    assert evaluation_2["margin"] == pytest.approx(evaluation["margin"], abs=1e-5)
    for name, weight in final.items():
        assert (final_2[name] - weight).abs().max() < 1e-6, name


def test_processes_that_do_not_find_each_other_stop_before_they_write(recipe: Path, tmp_path: Path) -> None:
    """torchrun on a CPU without ACCELERATE_USE_CPU: accelerate 1.11 and later would start two runs of one process each."""
    done = run_on(2, recipe, tmp_path, ACCELERATE_USE_CPU="false")

    if done.returncode == 0:  # an older accelerate joins them all the same
        assert len(list(tmp_path.iterdir())) == 1
        return
    assert done.returncode == 1  # torchrun's own; each process ended with 8
    assert "exitcode  : 8" in done.stderr
    assert "dpo: error[8] WORLD_SIZE" in done.stderr
    assert not list(tmp_path.iterdir())
