"""Run folders that look finished, without the training: another model in `model/` than the one that it started from."""

from __future__ import annotations

from pathlib import Path

from dpo_cli.recipe.load import load
from dpo_cli.runs.folder import choose_folder, create
from tests.fakes import write_model


def finished_run(recipe: Path, seed: int, *overrides: str) -> Path:
    """Give the folder of a run of `recipe` whose model is the tiny one of that seed."""
    settings = [f"train.output_dir={recipe.parent}/runs", f"train.seed={seed}", *overrides]
    loaded = load(str(recipe), settings)
    folder = choose_folder(loaded)
    create(folder, loaded)
    status = folder.status
    status.state, status.code, status.step, status.steps, status.train_seconds = "finished", 0, 8, 8, 4.0
    status.peak_memory_gib = 0.5
    status.eval = {"accuracy": 0.75, "ci": [0.5, 0.9], "n": 10, "what": "reward accuracy"}
    status.write()
    write_model(folder.path / "model", seed=seed)
    return folder.path
