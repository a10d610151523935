"""What saving costs: a whole checkpoint beside plain safetensors of the same bytes, and the share of training that waits for it.

Trains the quickstart recipe for `--steps` steps and saves after every `--every`; the loop's waiting is measured in the event that saves.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from dpo_cli.modeling.load import load_model
from dpo_cli.recipe.load import load
from dpo_cli.runs.checkpoint import MODEL, OPTIMIZER, save_checkpoint, take_snapshot
from dpo_cli.train import callbacks
from dpo_cli.train.run import train
from dpo_cli.train.state import Run


def main() -> None:
    """Print the time of each, their ratio, and the share of waiting with a save every 60 s."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--folder", help="a folder on the disk to measure; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        compare_with_plain(args.model, Path(folder), args.rounds)
        measure_waiting(args.model, Path(folder) / "runs", args.steps, args.every)


def compare_with_plain(model_folder: str, folder: Path, rounds: int) -> None:
    """Write the model and made-up moments both ways, in turn."""
    model = load_model(Path(model_folder), 0)
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        moments = {name: torch.rand_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight] = {"step": torch.tensor(1.0), **moments}
    snapshot = take_snapshot(model, optimizer)
    gib = sum(tensor.nbytes for tensors in snapshot.values() for tensor in tensors.values()) / 2**30

    def plain() -> None:
        for name in (MODEL, OPTIMIZER):
            save_file(dict(snapshot[name]), folder / name)
            handle = os.open(folder / name, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def whole() -> None:
        save_checkpoint(folder / "checkpoints", 1, take_snapshot(model, optimizer), {}, keep_last=1)

    times: dict[Callable[[], None], list[float]] = {plain: [], whole: []}
    for _ in range(rounds):
        for way, seconds in times.items():
            for left in (folder / MODEL, folder / OPTIMIZER):
                left.unlink(missing_ok=True)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            os.sync()
            began = time.monotonic()
            way()
            seconds.append(time.monotonic() - began)
    for way, seconds in times.items():
        told = " ".join(f"{each:.2f}" for each in sorted(seconds))
        print(f"{way.__name__:<6} {gib:.2f} GiB: median {statistics.median(seconds):.2f} s   ({told})")
    pairs = zip(times[whole], times[plain], strict=True)
    print(f"whole / plain: median of pairs {statistics.median(a / b for a, b in pairs):.2f}")


def measure_waiting(model: str, output: Path, steps: int, every: int) -> None:
    """Train, and time the event that saves."""
    waited: list[float] = []
    after_step = callbacks.SaveEvent.after_step

    def timed(event: callbacks.SaveEvent, run: Run) -> None:
        began = time.monotonic()
        after_step(event, run)
        if run.step % every == 0 and run.step < run.total_steps:
            waited.append(time.monotonic() - began)

    callbacks.SaveEvent.after_step = timed  # type: ignore[method-assign]
    overrides = [f"model.name={model}", f"train.output_dir={output}", f"train.max_steps={steps}"]
    overrides += [f"train.save_every={every}", "train.samples=0", "train.eval_every=0", "log.every=1"]
    status = train(load("recipes/quickstart.yaml", overrides), "bench")
    told = " ".join(f"{each:.2f}" for each in waited)
    print(f"the loop waited {told} s for {len(waited)} saves in {status.train_seconds:.0f} s of training")
    print(f"with a save every 60 s that is {statistics.mean(waited) / 60:.2%} of the time")


if __name__ == "__main__":
    main()
