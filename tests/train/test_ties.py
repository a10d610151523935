"""A run whose policy is hardly its reference's better: console, metrics.jsonl, result, interval, card and `dpo eval` agree on its ties."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dpo_cli.cli.evaluate.eval import evaluate
from dpo_cli.evaluate.pairs.pair_history import read_ledger
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.train.tiny_recipe import write_recipe

EVAL = re.compile(r"^eval step=.* acc=(\S+) .*acc_ci=([\d.]+)\.\.([\d.]+)", re.M)
RESULT = re.compile(r"reward accuracy ([\d.]+) \[([\d.]+), ([\d.]+)\]")


@pytest.mark.parametrize(("rate", "all_tie"), [("1e-9", True), ("5e-7", False)], ids=["all", "some"])
def test_every_place_that_gives_the_accuracy_gives_the_same(
    rate: str, all_tie: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        f"optim.lr={rate}",
        "optim.warmup=0",
        "train.eval_every=1",
        "train.max_steps=3",
        "train.ledger=true",
    ]
    recipe = load(str(write_recipe(tmp_path)), [*settings, f"train.output_dir={tmp_path}/runs"])
    status = train(recipe, "dpo train tiny.yaml")
    (run,) = (tmp_path / "runs").iterdir()
    told = capsys.readouterr().err
    evaluate(str(run), as_json=True)
    measured = json.loads(capsys.readouterr().out)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evals = [row for row in logged if "eval/rewards/accuracies" in row]

    assert status.eval is not None and status.eval["ties"] == measured["ties"]
    assert measured["ties"] == measured["n"] if all_tie else 0 < measured["ties"] < measured["n"]
    assert status.eval["accuracy"] == evals[-1]["eval/rewards/accuracies"] == measured["accuracy"]
    assert status.eval["ci"] == measured["ci"]
    assert measured["axis"]["log_ratio_accuracy"] == measured["accuracy"]
    assert f"{measured['accuracy']:.3f} [" in (run / "model" / "README.md").read_text()
    assert [float(found[1]) for found in EVAL.finditer(told)] == pytest.approx(
        [row["eval/rewards/accuracies"] for row in evals], abs=5e-4
    )
    pairs = [*EVAL.finditer(told), *RESULT.finditer(told)]
    assert len(pairs) >= 4
    assert all(
        float(low) <= float(accuracy) <= float(high) for accuracy, low, high in (f.groups() for f in pairs)
    )
    if all_tie:
        steps = [row["train/rewards/accuracies"] for row in logged if "train/rewards/accuracies" in row]
        right = read_ledger(run / "ledger").figures()["right"]
        assert {*steps, right, measured["accuracy"]} == {0.5}
