"""Every shipped recipe that a CPU can run does, for two steps on a few starter pairs with the real model. Minutes: `make test-real`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_cli.recipe.find import shipped
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
STARTER = ROOT / "recipes" / "starter" / "train.jsonl"
ON_A_CPU = [name for name in sorted(shipped()) if name.startswith(("smollm2_", "quickstart"))]


@pytest.mark.real
@pytest.mark.skipif(not MODEL.exists(), reason="needs `python scripts/quickstart_model.py`")
@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_cpu_recipe_trains_evaluates_and_saves(name: str, tmp_path: Path) -> None:
    few = [
        f"model.name={MODEL}",
        f"data.train=[{{path: {STARTER}, limit: 40}}]",
        "train.max_steps=2",
        "train.batch_size=4",
        "train.samples=0",
        f"train.output_dir={tmp_path}",
        "log.every=1",
        "log.trackers=[]",
    ]
    status = train(load(name, few), f"dpo train {name}")
    run = Path(status.run_dir)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert status.eval is not None and status.eval["n"] > 0
    assert any((run / "model").glob("*.safetensors"))
