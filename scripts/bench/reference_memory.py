"""Peak memory of one short `dpo train`, by where the reference comes from: no reference, store warm, store cold, second model live.

Each run is a process of its own; the runs without a reference use SimPO, whose loss is as cheap as DPO's. Peaks are VmHWM.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = {
    "no reference": ["method.name=simpo", "reference.source=none"],
    "store cold": [],
    "store warm": [],
    "live": ["reference.source=live"],
}


def main() -> None:
    """Print peak memory and its ratio to the run without a reference, round by round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument("--data", default="../shared/data/hh_helpful_base_dev.jsonl")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    peaks: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), args)
        for number in range(args.rounds):
            for kind, overrides in KINDS.items():
                store = f"reference.store={name}/store{number}"
                command = [sys.executable, "-m", "dpo_cli", "train", str(recipe), store, "train.resume=never"]
                done = subprocess.run(
                    [*command, *overrides, "--json"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                peaks[kind].append(json.loads(done.stdout)["peak_memory_gib"])
            print("  ".join(f"{kind} {values[-1]:.3f} GiB" for kind, values in peaks.items()), flush=True)
    for kind, values in peaks.items():
        ratios = [value / base for value, base in zip(values, peaks["no reference"], strict=True)]
        print(
            f"{kind:<13} {statistics.median(values):.3f} GiB, {statistics.median(ratios):.3f} of a run without a reference"
            f" ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def write_recipe(folder: Path, args: argparse.Namespace) -> Path:
    """Write a run of a few fp32 steps without checkpoints."""
    recipe = folder / "memory.yaml"
    recipe.write_text(
        f"model: {{name: {Path(args.model).resolve()}}}\n"
        f"data: {{train: [{{path: {Path(args.data).resolve()}, limit: {args.pairs}}}], split: {{eval: 0.0}}, max_length: 256}}\n"
        "optim: {lr: 5e-6}\n"
        f"train: {{batch_size: 8, precision: fp32, save_every: 0, samples: 0, output_dir: {folder}/runs}}\n"
    )
    return recipe


if __name__ == "__main__":
    main()
