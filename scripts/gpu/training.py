"""`dpo train` end to end on a GPU, and the same run killed and resumed: the same weights, or by how much they differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from scripts.gpu.context import Context
from scripts.gpu.shapes import fields_of
from tests.fakes import write_model

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "recipes" / "starter"


def run(here: Context) -> None:
    """Train one run as it is, one killed on the way and resumed, and, where there is time, one more as it is."""
    train_and_resume(here)


def train_and_resume(here: Context, *overrides: str) -> None:
    """Do so with a recipe's values overridden."""
    steps, kill_after = (8, 5) if here.tiny else (20, 12)
    model = here.model or write_model(here.folder / "model", **fields_of("135M", here.tiny))
    recipe = here.folder / "check.yaml"
    recipe.write_text(
        f"model: {{name: {model}}}\n"
        f"data:\n  train: [{{path: {STARTER / 'train.jsonl'}, limit: {8 * steps}}}]\n"
        f"  eval: [{{path: {STARTER / 'heldout.jsonl'}, limit: 16}}]\n"
        "  split: {eval: 0}\n  max_length: 512\n"
        "optim: {lr: 1e-4}\n"
        f"train: {{batch_size: 8, max_steps: {steps}, epochs: 9, eval_every: 0, save_every: 3, samples: 0}}\n"
        "log: {every: 1}\n"
    )
    whole = _train(here, recipe, "whole", overrides)
    status = json.loads((whole / "status.json").read_text())
    here.figure("pairs/s", round(status["pairs_per_second"], 2))
    here.figure("peak GiB", round(status["peak_memory_gib"], 2))
    here.figure("attention", json.loads((whole / "choices.json").read_text())["note"])
    here.figure("loss, first and last", [round(loss, 4) for loss in (_losses(whole)[0], _losses(whole)[-1])])
    _train(here, recipe, "resumed", overrides, kill_after=kill_after)
    resumed = _train(here, recipe, "resumed", overrides)
    attempts = json.loads((resumed / "status.json").read_text())["attempt"]
    here.check("runs that were not resumed", float(attempts == 0), 0)
    apart = _apart(whole, resumed)
    here.figure("resumed against whole, largest difference of a weight", apart)
    here.figure("resumed against whole, largest difference of a logged loss", _loss_apart(whole, resumed))
    if apart != "bit-equal" and here.seconds_left > 60 and not here.tiny:
        # The kernels' own repeatability: FlashAttention's backward adds in no fixed order.
        again = _train(here, recipe, "again", overrides)
        here.figure("the same run twice, largest difference of a weight", _apart(whole, again))


def _train(
    here: Context, recipe: Path, name: str, overrides: Sequence[str], kill_after: int | None = None
) -> Path:
    """Run `dpo train`, or kill it once so many steps are logged; return the run folder.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    output = here.folder / name
    said = here.folder / f"{name}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "XDG_CACHE_HOME": str(here.folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "dpo_cli",
        "train",
        str(recipe),
        f"train.output_dir={output}",
        *overrides,
    ]
    with said.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(0.02)
            if kill_after is not None and len(_losses_so_far(output)) >= kill_after:
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
    if process.returncode not in (0, -signal.SIGKILL if kill_after is not None else 0):
        raise RuntimeError(f"dpo train ended with {process.returncode}:\n{said.read_text()[-3000:]}")
    (folder,) = output.iterdir()
    return folder


def _losses_so_far(output: Path) -> list[float]:
    folders = list(output.glob("*/metrics.jsonl"))
    return _losses(folders[0].parent) if folders else []


def _losses(run: Path) -> list[float]:
    """Return the logged loss of every step; a step that was done again after a kill counts as it was done last."""
    losses: dict[int, float] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:  # being written
            continue
        if "train/loss" in row:
            losses[row["step"]] = row["train/loss"]
    return list(losses.values())


def _apart(one: Path, other: Path) -> float | str:
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    if all(torch.equal(first[name], second[name]) for name in first):
        return "bit-equal"
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


def _loss_apart(one: Path, other: Path) -> float:
    return max(abs(a - b) for a, b in zip(_losses(one), _losses(other), strict=True))
