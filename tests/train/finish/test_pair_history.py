"""The ledger of real tiny runs: what each pair met, which labels look turned over, and the same after a kill."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import RecipeError
from dpo_cli.evaluate.pairs.pair_history import Ledger, read_ledger, read_visits
from dpo_cli.recipe.load import load
from dpo_cli.runs.status import read_status
from dpo_cli.train.pair_visits import Visits
from dpo_cli.train.run import train
from dpo_cli.train.step_plan import examples_of_step
from tests.fakes import pair_rows, write_jsonl, write_model

N = 160
TURNED = frozenset(random.Random(0).sample(range(N), N // 5))
RECIPE = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], eval: [{path: held.jsonl}]}
optim: {lr: 2e-3}
train: {batch_size: 16, epochs: 2, precision: fp32, eval_every: 0, save_every: 7, samples: 0, ledger: true}
log: {every: 5}
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "tiny")
    rows = pair_rows(N)
    for at in TURNED:
        rows[at]["chosen"], rows[at]["rejected"] = rows[at]["rejected"], rows[at]["chosen"]
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "held.jsonl", pair_rows(16, seed=1))
    (folder / "noisy.yaml").write_text(RECIPE)
    return folder / "noisy.yaml"


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    return Path(train(load(str(inputs), [f"train.output_dir={output}"]), "dpo train").run_dir)


def number(source: str) -> int:
    return int(source.rpartition(":")[2]) - 1


def test_every_visit_is_noted_with_margin_and_weight(run: Path) -> None:
    visits = read_visits(run / "ledger" / "visits.jsonl")

    assert set(visits) == set(range(N)) and {len(each) for each in visits.values()} == {2}
    met = {
        step: {row for row, each in visits.items() if step in {at for at, _, _ in each}} for step in (0, 13)
    }
    assert met == {step: set(examples_of_step(step, N, 16, 0)) for step in (0, 13)}
    margins, weights = (np.array([visit[i] for each in visits.values() for visit in each]) for i in (1, 2))
    assert np.abs(margins).max() > 0.5
    # DPO's own: beta times sigma(-margin).
    assert weights == pytest.approx(0.1 / (1 + np.exp(margins)), rel=1e-4)


def test_labels_that_were_turned_over_are_found(run: Path) -> None:
    ledger: Ledger = read_ledger(run / "ledger")
    suspected = {number(ledger.source[at]) for at in np.flatnonzero(ledger.flips.suspected)}

    assert suspected <= TURNED and len(suspected) >= 0.85 * len(TURNED)
    status = read_status(run)
    assert status is not None and status.state == "finished"


@pytest.mark.slow
def test_a_run_trains_without_the_suspects(run: Path, inputs: Path, tmp_path: Path) -> None:
    settings = [f"train.output_dir={tmp_path}", f"data.drop={run}/ledger/suspects.jsonl"]
    clean = read_ledger(Path(train(load(str(inputs), settings), "dpo train").run_dir) / "ledger")

    dropped = read_ledger(run / "ledger").flips.suspected
    assert len(clean) == N - dropped.sum()
    assert not set(clean.key) & set(read_ledger(run / "ledger").key[dropped])
    assert clean.flips.suspected.sum() <= len(TURNED) - dropped.sum()


def test_a_resumed_run_keeps_the_same_ledger(run: Path, inputs: Path, tmp_path: Path) -> None:
    settings = [f"train.output_dir={tmp_path}"]
    path = tmp_path / run.name
    shutil.copytree(run, path)
    shutil.rmtree(path / "checkpoints" / "step-00000020")
    status = read_status(path)
    assert status is not None
    status.state, status.run_dir = "training", str(path)
    status.write()
    (path / "ledger" / "pairs.parquet").unlink()
    train(load(str(inputs), settings), "dpo train")
    lines = (path / "ledger" / "visits.jsonl").read_text().splitlines()

    assert len(lines) > len((run / "ledger" / "visits.jsonl").read_text().splitlines()), "steps were repeated"
    first, second = read_ledger(run / "ledger"), read_ledger(path / "ledger")
    assert first.visits == second.visits and np.array_equal(first.margin, second.margin)


def test_a_line_cut_short_takes_no_other_with_it(tmp_path: Path) -> None:
    visits, path = Visits(tmp_path), tmp_path / "ledger" / "visits.jsonl"
    for step in range(3):
        visits.add(step, [7], torch.tensor([0.5]), torch.tensor([0.05]))
        visits.flush(list, is_main=True)
        if step == 1:  # a full disk took half of this line
            path.write_bytes(path.read_bytes()[:-9])

    assert [at for at, _, _ in read_visits(path)[7]] == [0, 2]


def test_the_command_shows_suspects_and_what_to_type(run: Path) -> None:
    told = CliRunner().invoke(app, ["ledger", str(run), "--show", "3"], env={"COLUMNS": "400"})
    facts = json.loads(CliRunner().invoke(app, ["ledger", str(run), "--show", "3", "--json"]).stdout)

    assert told.exit_code == 0 and "% turned over; " in told.stdout and "look mislabelled" in told.stdout
    assert f"data.drop={run}/ledger/suspects.jsonl" in told.stderr
    assert facts["suspected"] > 0.85 * len(TURNED) and len(facts["suspects"]) == 3
    assert {number(each["source"]) for each in facts["suspects"]} <= TURNED


def test_a_method_without_pairs_keeps_no_ledger(inputs: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.ledger.*'kto' trains on none"):
        load(str(inputs), ["method.name=kto"])
