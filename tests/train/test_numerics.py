"""A step that is not finite changes no weight, names its rows and ends the run, or is counted and left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpo_cli.data.plan import examples_of_step
from dpo_cli.errors import NumericsError, OutOfMemoryError
from dpo_cli.modeling import shortage
from dpo_cli.modeling.batching import score_groups
from dpo_cli.modeling.shortage import naming_memory
from dpo_cli.reference.fill import fill
from dpo_cli.reference.store import Store
from dpo_cli.reference.values import ReferenceValues
from dpo_cli.train import loop
from dpo_cli.train.loop import Run, fit, optimizer_step
from dpo_cli.train.numerics import FILE_NAME, FiniteCheck, spread
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
        f" {longest.n_tokens:,}. Fix: {shortage.KNOB}={tokens // 2}"
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
