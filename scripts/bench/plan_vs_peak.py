"""What `dpo plan` predicts of memory beside what `dpo train` took, on this machine, for several recipes of one model.

    python scripts/bench/plan_vs_peak.py polite.jsonl --model models/SmolLM2-135M-Instruct

A few steps are enough: the peak is that of the largest micro-batch beside weights, gradients and moments.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = (
    "smollm2_polite_dpo",
    "smollm2_polite_kto",
    "smollm2_polite_orpo",
    "smollm2_polite_sft",
    "smollm2_polite_reward",
    "smollm2_polite_dpo_lora",
)


def dpo(*words: str) -> str:
    """Run a command of ours; return what it prints."""
    command = [sys.executable, "-m", "dpo_cli", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return done.stdout


def main() -> None:
    """Plan and train each recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="pairs, in any format that `dpo train` reads")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    given = parser.parse_args()
    print(f"{'recipe':<28} {'planned':>8} {'peak':>8} {'ratio':>6}   GiB")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.recipes:
            overrides = [
                f"model.name={given.model.resolve()}",
                f"data.train=[{{path: {given.file.resolve()}}}]",
                "data.split.eval=0.02",
                "train.eval_every=0",
                "train.save_every=0",
                "train.samples=0",
                f"train.max_steps={given.steps}",
                f"train.output_dir={folder}",
                f"name={name}",
            ]
            planned = json.loads(dpo("plan", name, *overrides, "--json"))["bytes"]["total"] / 2**30
            dpo("train", name, *overrides)
            peak = json.loads((Path(folder) / name / "status.json").read_text())["peak_memory_gib"]
            print(f"{name:<28} {planned:>8.2f} {peak:>8.2f} {planned / peak:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
