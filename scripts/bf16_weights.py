"""What weights in bf16 cost: the held-out margin after a run with weights in fp32, in bf16 rounded stochastically, and in bf16 rounded to nearest.

    python scripts/bf16_weights.py polite.jsonl --model models/SmolLM2-135M-Instruct --steps 200 --lr 5e-7

All runs see the same pairs in the same order; the seeds of the stochastic rounding come from `train.seed`, which also deals the pairs. The
margins are those of the pairs held out, with the reference of the same run. Needs a CPU or GPU that multiplies bf16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

KINDS = {"fp32": "fp32", "bf16, stochastic": "bf16", "bf16, nearest": "bf16"}
"""Name of a kind of run -> its `train.weights`."""


def train(kind: str, seed: int, given: argparse.Namespace, folder: Path) -> float:
    """Train once in a process of its own; return the mean held-out margin, nats times beta."""
    overrides = [
        "data.split.eval=0.2",
        f"optim.lr={given.lr}",
        "optim.warmup=0.1",
        f"optim.name={given.optimizer}",
        f"train.weights={KINDS[kind]}",
        "train.precision=bf16",
        f"train.seed={seed}",
        f"train.max_steps={given.steps}",
        f"train.batch_size={given.batch_size}",
        "train.epochs=100",
        "train.eval_every=0",
        "train.save_every=0",
        "train.samples=0",
        f"train.output_dir={folder}",
        f"name={kind.replace(', ', '-')}-{seed}",
    ]
    code = "from dpo_cli.cli.app import app; app()"
    if kind == "bf16, nearest":
        code = f"from dpo_cli.train import sliced_optimizer; sliced_optimizer.round_stochastically = lambda values, _noise: values.bfloat16(); {code}"
    recipe = folder / "rounding.yaml"
    recipe.write_text(
        f"model: {{name: {given.model.resolve()}}}\ndata: {{train: [{{path: {given.file.resolve()}}}]}}\n"
    )
    command = [sys.executable, "-c", code, "train", str(recipe), *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    status = json.loads((folder / f"{kind.replace(', ', '-')}-{seed}" / "status.json").read_text())
    print(
        f"{kind}, seed {seed}: margin {status['margins']['trained']:.5f}, {status['train_seconds']:.0f} s",
        flush=True,
    )
    return float(status["margins"]["trained"])


def main() -> None:
    """Run every kind with every seed and compare the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="pairs, in any format that `dpo train` reads")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--optimizer", default="adamw")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            kind: [train(kind, seed, given, Path(folder)) for seed in range(given.seeds)] for kind in KINDS
        }
    truth = found["fp32"]
    print(
        f"{'weights':<18} {'margin':>9} {'of fp32':>8} {'paired difference, mean and standard deviation over seeds':>58}"
    )
    for kind, margins in found.items():
        apart = [margin - whole for margin, whole in zip(margins, truth, strict=True)]
        spread = stdev(apart) if len(apart) > 1 else 0.0
        share = mean(margins) / mean(truth)
        print(f"{kind:<18} {mean(margins):>9.5f} {share:>8.3f} {mean(apart):>30.5f} {spread:>27.5f}")


if __name__ == "__main__":
    main()
