"""Which weights a run ships, when it stops, and the same after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dpo_cli.errors import RecipeError
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.metrics.sinks.jsonl import read_metrics
from dpo_cli.recipe.load import load
from dpo_cli.runs.status import read_status
from dpo_cli.train.finish.best_weights import Selection
from dpo_cli.train.run import train
from tests.fakes import pair_rows, write_jsonl, write_model

T = TypeVar("T")

N = 200
PROMPTS = [f"p{i}" for i in range(N)]


def evaluated(n_right: int, loss: float = 0.5, n: int = N) -> Evaluation:
    """Give an evaluation in which the first pairs are right."""
    correct = (np.arange(n) < n_right).astype(np.float64)
    return Evaluation(n, n_right / n, None, 0.0, loss, 0, None, {}, correct=correct)


class Rank:
    """A rank of a job whose main rank speaks first; what it said stays in `said`."""

    def __init__(self, said: list[object], is_main: bool = True) -> None:
        self.said, self.is_main = said, is_main

    def from_main(self, value: T) -> T:
        """Give the main rank's value."""
        if self.is_main:
            self.said[:] = [value]
        return self.said[0]  # type: ignore[return-value]

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give this rank's own items."""
        return list(items)


def selection(
    folder: Path, patience: int | None = None, keeps: bool = True, rank: Rank | None = None
) -> Selection:
    return Selection(folder, keeps, patience, PROMPTS, rank or Rank([]))


def valued(value: float) -> nn.Linear:
    model = nn.Linear(2, 2, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_the_best_is_taken_only_where_it_is_separable_from_the_last(tmp_path: Path) -> None:
    found = selection(tmp_path)
    for step, right in ((10, 150), (20, 170), (30, 160)):
        found.see(step, evaluated(right), valued(step))

    far, near, over = (found.choose(evaluated(right)) for right in (140, 168, 171))
    assert far.step == 20 and far.text.startswith(
        "of step 20, 0.850 against 0.700 at the end on the same 200 pairs"
    )
    assert "chosen on these pairs, so their figures flatter" in far.text
    assert near.step is None and "is not separable from it" in near.text
    assert over.step is None and "none of 3 evaluations was better" in over.text


def test_the_best_of_many_must_be_better_by_more(tmp_path: Path) -> None:
    few, many = selection(tmp_path / "few"), selection(tmp_path / "many")
    for folder in ("few", "many"):
        (tmp_path / folder).mkdir()
    few.see(1, evaluated(150), valued(1))
    many.see(1, evaluated(150), valued(1))
    for step in range(2, 12):
        many.see(step, evaluated(100), valued(step))

    last = evaluated(143)
    assert few.choose(last).step == 1
    assert many.choose(last).step is None, "the largest of eleven draws is large by chance"


def test_weights_come_back_and_damaged_ones_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = selection(tmp_path)
    found.see(10, evaluated(150), valued(1.5))
    model = valued(0.0)

    assert found.load_best(model) and torch.equal(model.weight, valued(1.5).weight)
    (path,) = (tmp_path / "best").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not found.load_best(valued(0.0)) and "the last weights are kept" in caplog.text


def test_every_rank_takes_the_best_weights(tmp_path: Path) -> None:
    said: list[object] = []
    ranks = [selection(tmp_path, rank=Rank(said, is_main)) for is_main in (True, False)]
    for each in ranks:
        each.see(10, evaluated(150), valued(1.5))

    for each in ranks:
        model = valued(0.0)
        assert each.load_best(model) and torch.equal(model.weight, valued(1.5).weight)
    assert ranks[0].state() == ranks[1].state()


def test_patience_counts_evaluations_without_a_better_one(tmp_path: Path) -> None:
    found = selection(tmp_path, patience=2, keeps=False)
    over = []
    for step, (right, loss) in enumerate([(150, 0.5), (150, 0.6), (150, 0.4), (140, 0.3), (149, 0.3)]):
        found.see(step, evaluated(right, loss), valued(step))
        over.append(found.is_over)

    assert over == [False, False, False, False, True], "of two with one accuracy the lower loss is the better"
    assert not (tmp_path / "best").exists()
    again = selection(tmp_path, patience=2, keeps=False)
    again.load_state(found.state())
    assert again.is_over and again.best == found.best


def test_only_weights_that_something_may_go_on_from_stay(tmp_path: Path) -> None:
    found = selection(tmp_path)
    for step in range(1, 5):
        if step == 3:  # a checkpoint was written after step 1
            folder = tmp_path / "checkpoints" / "step-00000001"
            folder.mkdir(parents=True)
            (folder / "state.json").write_text('{"selection": {"best": {"step": 1}}}')
            (tmp_path / "best" / "step-00000001.safetensors").touch()
        found.see(step, evaluated(100 + step), valued(step))

    assert sorted(path.name[5:13] for path in (tmp_path / "best").iterdir()) == [
        "00000001",
        "00000003",
        "00000004",
    ]


RECIPE = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], eval: [{path: held.jsonl}]}
optim: {lr: 2e-3, warmup: 0, schedule: constant}
train: {batch_size: 8, epochs: 12, precision: fp32, eval_every: 4, save_every: 5, samples: 0, select: best, early_stop: 3}
log: {every: 3}
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose held-out pairs say the opposite of its training pairs: every evaluation is worse than the one before."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "tiny")
    write_jsonl(folder / "rows.jsonl", pair_rows(40))
    write_jsonl(folder / "same.jsonl", pair_rows(40, seed=1))
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pair_rows(40, seed=1)]
    write_jsonl(folder / "held.jsonl", turned)
    (folder / "r.yaml").write_text(RECIPE)
    return folder / "r.yaml"


@pytest.mark.slow
def test_an_early_stop_ends_the_run_and_a_resumed_run_stops_there_too(inputs: Path, tmp_path: Path) -> None:
    first = train(load(str(inputs), [f"train.output_dir={tmp_path}/a"]), "dpo train")
    path = Path(first.run_dir)

    assert first.state == "finished"
    assert (first.step, first.steps) == (16, 60)
    assert first.message == f"complete at step {first.step} of 60, stopped early"
    assert "train/loss" in read_metrics(path / "metrics.jsonl")[-1], (
        "the steps since the last line are told too"
    )
    assert first.weights in (path / "model" / "README.md").read_text() and first.weights.startswith("of ")
    again = tmp_path / "b" / path.name
    shutil.copytree(path, again)
    newest = max((again / "checkpoints").iterdir())
    shutil.rmtree(newest)
    shutil.rmtree(again / "model")
    status = read_status(again)
    assert status is not None
    replace(status, state="training", run_dir=str(again)).write()
    second = train(load(str(inputs), [f"train.output_dir={tmp_path}/b"]), "dpo train")

    assert (second.step, second.weights, second.attempt) == (first.step, first.weights, 1)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (path, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_run_that_goes_on_has_seen_the_evaluations_of_one_that_never_ended(
    inputs: Path, tmp_path: Path
) -> None:
    settings = ["name=mine", "train.early_stop=null", "train.eval_every=2", "train.save_every=2"]
    said = {}
    for name, ends in (("once", (6,)), ("twice", (4, 6))):
        for steps in ends:
            where = [f"train.output_dir={tmp_path / name}", f"train.max_steps={steps}"]
            status = train(load(str(inputs), [*settings, *where]), "dpo train")
        said[name] = (status.step, status.weights)

    assert said["once"][0] == 6 and "none of 2 evaluations was better" in said["once"][1]
    assert said["twice"] == said["once"]


@pytest.mark.slow
def test_better_weights_are_shipped_and_measured(inputs: Path, tmp_path: Path) -> None:
    # A rate at which the second step throws away what the first has learnt.
    settings = [
        f"train.output_dir={tmp_path}",
        "train.early_stop=null",
        "train.max_steps=2",
        "train.eval_every=1",
    ]
    settings += [f"data.eval=[{{path: {inputs.parent}/same.jsonl}}]", "optim.lr=2e-2"]
    status = train(load(str(inputs), settings), "dpo train")
    best = load_file(next((Path(status.run_dir) / "best").glob("step-00000001*")))
    saved = load_file(Path(status.run_dir) / "model" / "model.safetensors")

    assert status.weights.startswith("of step 1, ") and status.eval is not None
    assert all(torch.equal(best[name], saved[name]) for name in best)
    assert status.margins["trained"] == status.margins["saved"] == status.eval["margin"]


def test_choosing_needs_evaluations_on_the_way(inputs: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.select.*eval_every' is 0") as caught:
        load(str(inputs), ["train.eval_every=0"])

    assert len(caught.value.problems) == 2
