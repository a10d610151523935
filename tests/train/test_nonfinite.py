"""A step that is not finite changes no weight, names its rows and ends the run, or is counted and left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpo_cli.engine.batching import score_groups
from dpo_cli.errors import NumericsError, OutOfMemoryError
from dpo_cli.modeling import oom
from dpo_cli.modeling.layout import Row
from dpo_cli.modeling.oom import naming_memory
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.fill import fill
from dpo_cli.reference.store import Store
from dpo_cli.train import loop
from dpo_cli.train.fit import fit
from dpo_cli.train.loop import bins_of_step, optimizer_step
from dpo_cli.train.nonfinite import FILE_NAME, FiniteCheck, spread
from dpo_cli.train.probe import fitting_budget
from dpo_cli.train.state import Run
from dpo_cli.train.step_plan import examples_of_step
from dpo_cli.types import LogProbs
from tests.train.small import small_run, weights


def poison(run: Run, steps: set[int], value: float = float("nan")) -> None:
    """Make the reference's value of one row of these steps something that is no number."""
    assert run.reference is not None
    lookup = run.reference.lookup

    def poisoned(groups: list, device: str = "cpu") -> LogProbs:
        found = lookup(groups, device)
        victim = run.groups[examples_of_step(run.step, len(run.groups), 8, 0)[0]]
        if run.step in steps and victim in groups:
            found.total[2 * groups.index(victim)] = value
        return found

    run.reference.lookup = poisoned  # type: ignore[method-assign]


class Look:
    """Looks every `every` steps, as the log event does."""

    def __init__(self, folder: Path, budget: int, every: int = 1) -> None:
        self.check, self.every = FiniteCheck(folder, budget), every

    def after_step(self, run: Run) -> None:
        if run.step % self.every == 0:
            self.check.look(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_fault_079_a_bad_reference_value_changes_no_weight_and_names_its_rows(
    tmp_path: Path, value: float
) -> None:
    run, _ = small_run(tmp_path, "train.max_steps=3", token_budget=500)
    poison(run, {1}, value)
    run.events = [Look(tmp_path, budget=0, every=3)]
    alone, _ = small_run(tmp_path, "train.max_steps=3", token_budget=500)
    for step in (0, 2):
        alone.step = step
        optimizer_step(alone)

    with pytest.raises(
        NumericsError, match=r"step 2: the loss was not finite .* no weight was changed"
    ) as caught:
        fit(run)

    assert caught.value.code == 6
    assert torch.equal(weights(run), weights(alone)), "as if the step had not been"
    victim = run.groups[examples_of_step(1, len(run.groups), 8, 0)[0]]
    found = json.loads((tmp_path / FILE_NAME).read_text())
    by_row = {row["row"]: row for row in found["rows"]}
    assert found["step"] == 2 and len(by_row) == 8
    assert not by_row[victim.source]["loss_is_finite"] and victim.source in str(caught.value)
    assert by_row[victim.source]["prompt_ids"] == victim.prompt.tolist()
    assert sum(row["loss_is_finite"] for row in by_row.values()) > 0, "only its micro-batch is suspected"


def test_fault_079_a_gradient_that_overflows_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path, "train.max_steps=2")
    before = weights(run)
    next(run.scorer.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    run.events = [Look(tmp_path, budget=0)]

    with pytest.raises(NumericsError, match=r"step 1: the gradient was not finite, though every loss was"):
        fit(run)
    assert torch.equal(weights(run), before)


def test_one_bad_loss_makes_all_gradients_nan_and_a_good_one_leaves_every_bit() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    (good,) = torch.autograd.grad(spread((weight * 0.1).sum()), weight)
    (plain,) = torch.autograd.grad((weight * 0.1).sum(), weight)
    (bad,) = torch.autograd.grad(spread((weight * 0).sum() + float("inf")), weight)

    assert torch.equal(good, plain)
    assert bad.isnan().all()


def test_fault_080_as_many_as_the_budget_are_left_out_and_one_more_ends_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, recorder = small_run(tmp_path, "train.max_steps=6")
    poison(run, {0, 1, 3, 5})
    run.events = [recorder, Look(tmp_path, budget=3)]

    with pytest.raises(NumericsError, match=r"train\.skip_nonfinite=4 leaves out as many"):
        fit(run)

    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in told] == [
        "step 1 left out, 1 of 3",
        "step 2 left out, 2 of 3",
        "step 4 left out, 3 of 3",
    ]
    assert run.step == 6 and run.n_skipped == 4


def test_a_step_that_was_left_out_is_not_in_the_logged_means(tmp_path: Path) -> None:
    class Window:
        def after_step(self, run: Run) -> None:
            if run.step == 2:
                self.values = run.meter.reduce()

    run, _ = small_run(tmp_path, "train.max_steps=2")
    poison(run, {1})
    window = Window()
    run.events = [window]
    fit(run)
    first, recorder = small_run(tmp_path, "train.max_steps=1")
    fit(first)

    assert window.values["train/loss"] == recorder.losses[0]
    assert window.values["train/grad_norm"] == recorder.rows[0]["train/grad_norm"]
    assert window.values["optim/nonfinite_frac"] == 0.5


def test_fault_079_a_reference_that_gives_no_number_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)

    class One:
        world = 1

        def from_main(self, value: object) -> object:
            return value

    def scored(groups: list, _tell: Callable[[int], None]) -> list:
        return [[(float("nan"), 3), (-1.0, 3)] for _ in groups]

    store = Store(tmp_path / "store", "ns", {})
    with pytest.raises(NumericsError, match=r"rows\.jsonl:\d+: the reference's log-prob is not finite"):
        fill(ReferenceValues(), run.groups, scored, store, One())  # type: ignore[arg-type]

    assert not list((tmp_path / "store").rglob("*.parquet"))


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_fault_088_out_of_memory_names_rows_lengths_and_the_knob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    run, _ = small_run(tmp_path)
    members = examples_of_step(0, len(run.groups), 8, 0)
    tokens = sum(run.lengths[member] for member in members)
    longest = max((run.groups[member] for member in members), key=lambda group: group.n_tokens)
    monkeypatch.setattr(loop, "score", full)

    with pytest.raises(OutOfMemoryError) as caught:
        fit(run)

    assert caught.value.code == 7
    (line,) = caught.value.lines()
    assert line == (
        f"dpo: error[7] {longest.source}: out of memory at 8 rows of {tokens:,} tokens, the longest"
        f" {longest.n_tokens:,}. Fix: {oom.KNOB}={tokens // 2}"
    )


def test_fault_088_a_row_alone_points_at_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = small_run(tmp_path)

    def full(_row: object) -> None:
        raise MemoryError

    monkeypatch.setattr(run.scorer, "forward", full)
    with pytest.raises(OutOfMemoryError, match=r"one row of \d+ tokens. Fix: data\.max_length="):
        score_groups(run.scorer, run.groups[:1], 4096, run.runtime.autocast)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), naming_memory("here"):
        raise RuntimeError("shapes do not match")
    with pytest.raises(OutOfMemoryError, match="here: not enough memory: CUDA"), naming_memory("here"):
        raise ERRORS[0]


def short_of_memory(run: Run, monkeypatch: pytest.MonkeyPatch, at_step: int, most: int) -> None:
    """Let forwards of more than `most` tokens run out of memory from a step (from 0) on."""
    forward = run.scorer.forward

    def limited(row: Row) -> object:
        if run.step >= at_step and row.n_computed > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(row)

    monkeypatch.setattr(run.scorer, "forward", limited)


def test_fault_088_a_later_shortage_halves_the_budget_once_and_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    budget = 400
    half, expected = small_run(tmp_path, token_budget=budget // 2)
    fit(half)
    run, recorder = small_run(tmp_path, token_budget=budget)
    assert max(len(members) for members in bins_of_step(run)) > 1
    short_of_memory(run, monkeypatch, at_step=2, most=budget // 2)
    budgets: list[int] = []
    run.resized = budgets.append

    fit(run)

    assert budgets == [budget // 2] == [run.token_budget]
    assert run.step == half.step
    assert (weights(run) - weights(half)).abs().max() < 1e-6
    assert [row.keys() for row in recorder.rows] == [row.keys() for row in expected.rows]
    for found, truth in zip(recorder.rows, expected.rows, strict=True):
        assert found["train/loss"] == pytest.approx(truth["train/loss"], abs=1e-5)
        assert found["train/rewards/margins"] == pytest.approx(truth["train/rewards/margins"], abs=1e-4)
    (line,) = [record.message for record in caplog.records if "out of memory" in record.message]
    assert line.endswith(f"going on with {oom.KNOB}={budget // 2}")


def test_fault_088_a_second_shortage_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = small_run(tmp_path, token_budget=400)
    short_of_memory(run, monkeypatch, at_step=2, most=100)

    with pytest.raises(OutOfMemoryError):
        fit(run)

    assert run.step == 2


def test_the_budget_is_halved_until_the_heaviest_micro_batch_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    longest = max(run.lengths)
    short_of_memory(run, monkeypatch, at_step=0, most=2 * longest)

    found = fitting_budget(run.scorer, run.groups, run.lengths, 16 * longest, run.runtime)

    assert found == 2 * longest
    assert all(weight.grad is None for weight in run.scorer.parameters())
    with pytest.raises(OutOfMemoryError, match="at this one row"):
        short_of_memory(run, monkeypatch, at_step=0, most=longest - 1)
        fitting_budget(run.scorer, run.groups, run.lengths, 16 * longest, run.runtime)
