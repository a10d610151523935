"""Methods of other data than pairs: one loss however a step is cut, on however many ranks; whole runs by the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dpo_cli.recipe.load import load
from dpo_cli.reference.precompute import open_session, precompute
from dpo_cli.train.fit import fit
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.run import train as run
from tests.fakes import pair_rows, write_jsonl, write_model
from tests.train.small import small_run, weights
from tests.train.test_loop import run_on

KTO = ("method.name=kto", "train.max_steps=4")


APO = ("method.name=kto", "method.loss=apo_zero_unpaired")


@pytest.mark.parametrize("method", [("method.name=kto",), APO, ("method.name=sft",)])
def test_a_step_is_one_loss_however_it_is_cut(tmp_path: Path, method: tuple[str, ...]) -> None:
    logs, ends = [], []
    for budget in (10_000, 250, 1):  # the whole step, a few examples, one at a time
        run, log = small_run(tmp_path, *method, "train.max_steps=4", token_budget=budget)
        fit(run)
        logs.append(log.losses)
        ends.append(weights(run))

    assert logs[1] == pytest.approx(logs[0], abs=1e-6)
    assert logs[2] == pytest.approx(logs[0], abs=1e-6)
    assert (ends[2] - ends[0]).abs().max() < 1e-5
    assert logs[0][0] != logs[0][-1]


def test_the_drift_is_that_of_mismatched_completions_over_the_whole_step(tmp_path: Path) -> None:
    run, log = small_run(tmp_path, *KTO, "train.batch_size=48", token_budget=300)
    for _ in range(3):
        optimizer_step(run)
        run.step += 1
        run.meter.reduce()
    with torch.no_grad():
        row = run.scorer.eval().layout(run.mismatched)
        total = run.scorer(row)[1].float()
        expected = (total - run.reference.lookup(run.mismatched).total).mean().item()
    optimizer_step(run)
    log.after_step(run)

    assert len(run.mismatched) == len(run.groups) == 48
    assert abs(expected) > 1e-3
    assert log.rows[-1]["train/kto/kl"] == pytest.approx(expected, abs=1e-4)
    assert log.rows[-1]["train/kto/kl_clamped_frac"] == float(expected < 0)


def test_kto_learns_to_tell_wanted_from_unwanted(tmp_path: Path) -> None:
    run, log = small_run(tmp_path, "method.name=kto", "train.epochs=10", "optim.lr=3e-3")
    fit(run)

    assert log.rows[-1]["train/rewards/chosen"] > log.rows[-1]["train/rewards/rejected"] + 0.5


def test_the_auc_over_a_window_is_that_of_its_rewards(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path, *KTO, token_budget=300)
    run.events = []
    seen: list[tuple[float, bool]] = []
    loss = run.method.loss

    def watched(*args: Any) -> Any:
        out = loss(*args)
        rewards, wanted = out.ranked["rewards/auc"]
        seen.extend(zip(rewards.tolist(), wanted.tolist(), strict=True))
        return out

    run.method = replace(run.method, loss=watched)
    fit(run)
    up, down = ([reward for reward, label in seen if label == kind] for kind in (True, False))
    couples = [(a > b) + (a == b) / 2 for a in up for b in down]

    assert len(seen) == 4 * 8
    assert run.meter.reduce()["train/rewards/auc"] == pytest.approx(sum(couples) / len(couples))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a few files."""
    here = tmp_path_factory.mktemp("kinds")
    write_model(here / "model")
    pairs = pair_rows(14)
    write_jsonl(here / "pairs.jsonl", pairs)
    thumbs = [
        {"prompt": row["prompt"], "completion": row[side], "label": (side == "chosen") != (i % 4 == 0)}
        for i, row in enumerate(pairs)  # every fourth the wrong way round: no reward tells them all apart
        for side in ("chosen", "rejected")
    ]
    write_jsonl(here / "thumbs.jsonl", thumbs)
    write_jsonl(here / "targets.jsonl", [{"prompt": r["prompt"], "completion": r["chosen"]} for r in pairs])
    return here


def recipe(folder: Path, method: str, train: str, held: str) -> Path:
    path = folder / f"{method}_{train}_{held}.yaml"
    path.write_text(
        "model: {name: ./model}\n"
        f"data: {{train: [{{path: {train}.jsonl}}], eval: [{{path: {held}.jsonl, limit: 6}}], cache: tokens}}\n"
        f"method: {{name: {method}}}\n"
        "reference: {store: store}\n"
        "optim: {lr: 1e-3, warmup: 0, schedule: constant}\n"
        "train: {batch_size: 7, max_steps: 3, precision: fp32, samples: 0, max_tokens_per_micro_batch: 200}\n"
        "log: {every: 1}\n"
    )
    return path


@pytest.mark.parametrize(
    ("method", "train", "held", "told"),
    [
        ("kto", "pairs", "pairs", "held-out reward accuracy"),
        ("kto", "thumbs", "thumbs", "held-out label AUC"),
        ("sft", "pairs", "pairs", "held-out reward accuracy"),
        ("sft", "targets", "targets", "held-out loss"),
        ("simpo", "pairs", "pairs", "held-out reward accuracy"),
    ],
)
def test_a_whole_run_ends_with_its_figure(
    folder: Path,
    tmp_path: Path,
    method: str,
    train: str,
    held: str,
    told: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    status = run(
        load(str(recipe(folder, method, train, held)), [f"train.output_dir={tmp_path}"]), "dpo train"
    )

    assert status.state == "finished"
    assert ("p_chosen" in status.eval["axis"]) == (held == "pairs")
    assert ("log_ratio_margin" in status.eval["axis"]) == (held == "pairs" and method == "kto")
    assert told in capfd.readouterr().err
    assert (Path(status.run_dir) / "model" / "model.safetensors").exists()


def test_two_ranks_give_one_ranks_losses(folder: Path, tmp_path: Path) -> None:
    path = recipe(folder, "kto", "thumbs", "pairs")
    losses = {}
    for ranks in (1, 2):
        done = run_on(ranks, path, tmp_path / str(ranks))
        assert done.returncode == 0, done.stderr
        (run_dir,) = (tmp_path / str(ranks)).iterdir()
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        names = ("train/loss", "train/kto/kl", "train/rewards/auc")
        losses[ranks] = [tuple(row[name] for name in names) for row in rows if "train/loss" in row]

    assert len(losses[1]) == 3
    assert losses[1][0][2] == 0.5  # all rewards are zero before the first update
    assert 0 < losses[1][1][2] < 1
    for one, two in zip(losses[1], losses[2], strict=True):
        assert two == pytest.approx(one, rel=2e-6, abs=1e-6)


def test_another_method_on_the_same_pairs_costs_only_mismatched_completions(
    folder: Path, tmp_path: Path
) -> None:
    def computed(method: str, *overrides: str) -> int:
        path = recipe(folder, method, "pairs", "pairs")
        loaded = load(str(path), [f"reference.store={tmp_path / 'store'}", *overrides])
        with open_session(loaded) as session:
            return int(precompute(session).as_dict()["computed"])

    assert computed("dpo") == 28
    assert computed("kto", "method.loss=apo_zero_unpaired") == 0
    # A mismatched one for each completion; two of one prompt may share theirs.
    assert 14 <= computed("kto") <= 28
    assert computed("dpo") == 0
